"""The command line: `main`, and one module per command with a click command called `command`."""
