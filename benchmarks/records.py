"""The file of measurements, in which an interrupted benchmark continues: a JSON object per line."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import Case

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ("softmax_cli", "configs", "benchmarks/peers")
"""The folders of the programs. A change elsewhere does not make measurements invalid."""

PACKAGES = ("numpy", "scikit-learn", "scikit-learn-intelex", "torch")

Name = tuple[str, str, str]
"""Section, title and variant of a case."""

Record = dict[str, Any]
"""A measurement: the setup, the case, the round, and what was measured."""


def append(path: Path, record: Record) -> None:
    """Append a record to the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def load(path: Path) -> list[Record]:
    """Return all records; remove an incomplete last line, which an interruption left."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        path.write_text("".join(lines), "utf-8")
    return [json.loads(line) for line in lines]


def setup() -> dict[str, Any]:
    """Return what measurements must have in common to be compared: versions and machine."""
    names = {name: version(name) for name in PACKAGES}
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "softmax": version("softmax-regression"),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: number for name, number in names.items() if number},
        "machine": f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}",
    }


def commit() -> str:
    """Return the last commit of the programs, and a digest of the changes that are not committed."""
    found = _git("log", "-1", "--format=%h", "--", *MEASURED)
    changes = _git("diff", "HEAD", "--", *MEASURED)
    return found + (f"+{hashlib.sha256(changes.encode()).hexdigest()[:7]}" if changes else "")


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def version(package: str) -> str | None:
    """Return the version of an installed package, else None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def key(case: Case) -> Record:
    """Return the items of a record that say what was measured."""
    return {
        "section": case.section,
        "title": case.title,
        "variant": case.variant,
        "commands": [list(command) for command in case.commands],
    }


def name(record: Record) -> Name:
    """Return the name of a case, without its commands."""
    return record["section"], record["title"], record["variant"]


def find(
    known: Sequence[Record], case: Case, setup: dict[str, Any], number: int | None = None
) -> list[Record]:
    """Return the records of a case, by round: of one round, or of all."""
    wanted = key(case) | {"setup": setup} | ({} if number is None else {"round": number})
    found = [record for record in known if record | wanted == record]
    return sorted(found, key=lambda record: record["round"])
