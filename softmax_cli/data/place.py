"""The folder of the cache."""

import os
from pathlib import Path

from softmax_cli.errors import ConfigError


def cache_folder() -> Path:
    """Return the folder of the cache, from the environment; it need not exist.

    It is ``SOFTMAX_CACHE_DIR``, else ``$XDG_CACHE_HOME/softmax`` if that is absolute, as the XDG Base
    Directory Specification requires, else ``~/.cache/softmax``.

    Raises:
        ConfigError: There is no home folder.
    """
    if chosen := os.environ.get("SOFTMAX_CACHE_DIR"):
        return Path(chosen)
    if (xdg := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():
        return xdg / "softmax"
    try:
        return Path.home() / ".cache" / "softmax"
    except RuntimeError as error:
        raise ConfigError("there is no home folder for the cache; set SOFTMAX_CACHE_DIR") from error
