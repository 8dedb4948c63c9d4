"""How many threads the matrix products use: to be said before numpy is first imported."""

import os

VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)


def use_threads(count: int | None) -> None:
    """Give the matrix products `count` threads, or, with None, one unless the environment says otherwise.

    One is the default because the products of softmax regression are small: a second thread gains them
    next to nothing, and where another program wants that core, each product waits for it.
    """
    for name in VARIABLES:
        os.environ[name] = str(count) if count else os.environ.get(name, "1")
