"""One module per subcommand, each with a click command called `command`: it parses, calls and prints."""
