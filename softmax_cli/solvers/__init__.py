"""Solvers: each is a module with `solve`, which yields a step for each epoch, and `memory`.

The registry is `softmax_cli.config.SOLVERS`, with the facts that the rest of the package has to know.
"""
