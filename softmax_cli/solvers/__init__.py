"""The ways to minimise the loss, each a module whose `solve` yields a step for each epoch."""
