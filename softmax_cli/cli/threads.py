"""The number of threads, which must be set before numpy is first imported."""

import os

from softmax_cli.backend import BLAS_VARIABLES, VARIABLE, cores


def use_threads(count: int | None) -> None:
    """Set the number of cores, and use one BLAS thread per matrix product.

    `count` is the number of cores; None stands for all.

    The matrix products of softmax regression are small: a second BLAS thread hardly makes them faster, and
    if another program uses that core, each product waits for it. `softmax_cli.backend` shares larger parts
    of the work between threads instead. A count that is given overrides what the environment says.

    Raises:
        ConfigError: SOFTMAX_THREADS is not a positive whole number.
    """
    for name in BLAS_VARIABLES:
        if count or not os.environ.get(name):
            os.environ[name] = "1"
    if count:
        os.environ[VARIABLE] = str(count)
    cores()
