"""Solvers: each is a module with the functions `solve` and `memory`.

`solve` yields a step for each epoch.

The registry is `softmax_cli.config.SOLVERS`, with the properties that the rest of the package needs.
"""
