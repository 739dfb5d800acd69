"""How good units are: measures, and the report of a build."""
