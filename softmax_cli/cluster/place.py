"""What ``--cluster`` names: processes of this machine, or the scheduler of a cluster."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from softmax_cli.backend import PARTS, cores
from softmax_cli.errors import ConfigError
from softmax_cli.files import exists, open_regular

FILE_LIMIT = 1 << 20
"""Largest size of a scheduler file in bytes."""


class Place(NamedTuple):
    """A cluster: the number of processes to start on this machine, or else the address of a scheduler."""

    processes: int
    address: str

    def __str__(self) -> str:
        if self.processes:
            return f"the local cluster of {self.processes} process{'es' * (self.processes > 1)}"
        return f"the cluster at {self.address}"


def find_place(where: str) -> Place:
    """Return what ``local``, ``local:N``, an address ``tcp://HOST:PORT`` or a scheduler file names.

    Raises:
        ConfigError: It is none of these.
    """
    if match := re.fullmatch(r"local(?::([0-9]{1,4}))?", where):
        count = cores() if match[1] is None else int(match[1])
        if not 1 <= count <= PARTS:
            raise ConfigError(f"cluster {where!r}: the number of processes must be from 1 to {PARTS}")
        return Place(count, "")
    if re.fullmatch(r"(tcp|tls)://\S+:[0-9]+", where):
        return Place(0, where)
    if where and exists(where, ConfigError):
        return Place(0, _address_in(Path(where)))
    raise ConfigError(
        f"cluster {where!r} is none of: local, local:N, the address tcp://HOST:PORT of a Dask scheduler, a "
        "scheduler file that exists"
    )


def _address_in(path: Path) -> str:
    """Return the address in a scheduler file, as ``dask scheduler --scheduler-file`` writes it."""
    with open_regular(path, ConfigError) as file:
        content = file.read(FILE_LIMIT + 1)
    try:
        address = json.loads(content[:FILE_LIMIT])["address"]
    except (ValueError, RecursionError, LookupError, TypeError):
        address = None
    if not isinstance(address, str) or not re.fullmatch(r"(tcp|tls)://\S+:[0-9]+", address):
        raise ConfigError(f"{path} is not a scheduler file, which `dask scheduler --scheduler-file` writes")
    return address
