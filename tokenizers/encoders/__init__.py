"""SSL encoders: one public module each; a name on the command line is a module name."""
