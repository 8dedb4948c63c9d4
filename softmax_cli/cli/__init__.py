"""The command line: `main`, and one module with a `command` for each command."""
