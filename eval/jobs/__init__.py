"""The work of the commands, imported when their options are read."""
