"""Every way `softmax` fails on purpose.

A message says what was wrong, what was expected, and what to do. The command line prints it as one
``error:`` line; anything that is not a `SoftmaxError` is a bug and shows its traceback.
"""


class SoftmaxError(Exception):
    """Base of every error that the package raises itself."""


class ConfigError(SoftmaxError):
    """An option or a configuration key that cannot be used (exit code 2, like any wrong usage)."""


class DataError(SoftmaxError):
    """A data set that is missing, damaged, or not what it claims to be."""


class DownloadError(DataError):
    """A data set that neither the cache nor any mirror can supply."""


class CheckpointError(SoftmaxError):
    """A checkpoint that is missing, damaged, or made by something else."""


class ImageError(SoftmaxError):
    """A picture that cannot be read."""


class DivergenceError(SoftmaxError):
    """Training that left the finite numbers."""


class OutputError(SoftmaxError):
    """A file that cannot be written."""


def reason(error: OSError) -> str:
    """Return what the operating system says was wrong, to go into a message."""
    return (error.strerror or str(error)).lower()
