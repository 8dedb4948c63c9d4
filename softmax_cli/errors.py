"""The exceptions that the package raises.

SoftmaxError
├── ConfigError
├── DataError
│   └── DownloadError
├── CheckpointError
├── ImageError
├── DivergenceError
├── ClusterError
└── OutputError

A message says what was wrong, what was expected, and what to do. The command line prints it as one ``error:``
line; any other exception is a bug and shows its traceback.
"""


class SoftmaxError(Exception):
    """Base class of all errors that the package raises."""


class ConfigError(SoftmaxError):
    """An option or a configuration key is not valid (exit code 2, as for wrong usage)."""


class DataError(SoftmaxError):
    """A data set is missing, damaged, or not of the expected form."""


class DownloadError(DataError):
    """Neither the cache nor any mirror has a data set."""


class CheckpointError(SoftmaxError):
    """A checkpoint is missing, damaged, or not a checkpoint."""


class ImageError(SoftmaxError):
    """A picture cannot be read."""


class DivergenceError(SoftmaxError):
    """A value is not finite during training or evaluation."""


class ClusterError(SoftmaxError):
    """A cluster cannot be reached, or its workers do not suit the run."""


class OutputError(SoftmaxError):
    """A file cannot be written."""


def reason(error: OSError) -> str:
    """Return the message of the operating system for an error, as part of a sentence."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
