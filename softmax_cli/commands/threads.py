"""How many threads are used: to be said before numpy is first imported."""

import os

from softmax_cli.parallel import VARIABLE, cores

BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)


def use_threads(count: int | None) -> None:
    """Let the package use `count` cores (None: all), and each matrix product one, unless told otherwise.

    The products of softmax regression are small: a second thread gains them next to nothing, and where
    another program wants that core, each product waits for it. What is worth sharing out is shared out
    by `softmax_cli.parallel`, several products at a time. Raises `ConfigError` where its variable makes no
    sense.
    """
    for name in BLAS_VARIABLES:
        os.environ.setdefault(name, "1")
    if count:
        os.environ[VARIABLE] = str(count)
    cores()
