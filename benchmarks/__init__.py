"""Comparison of softmax with other trainers: ``python -m benchmarks --data FOLDER``.

The modules of this package import neither numpy nor a trainer, because Linux includes the memory of the
parent process at the start of a child in the child's peak memory. What needs numpy is a script of its own:
`prepare.py`, `score.py`, `plot.py` and those in `peers`.
"""
