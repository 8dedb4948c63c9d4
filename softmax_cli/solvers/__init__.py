"""The ways to minimise the loss, each a module of its own."""
