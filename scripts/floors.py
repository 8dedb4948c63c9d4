"""Print the lowest declared version of each package that the library imports, as constraints for pip.

    python scripts/floors.py > floors.txt

The output is a file of constraints.
"""

import re
import tomllib
from pathlib import Path

EXTRAS = ("sklearn", "onnx", "parquet", "dask")
"""Extras whose packages the library imports, and which its tests need."""


def floors(project: Path) -> list[str]:
    """Return a line ``NAME==VERSION`` for each dependency ``NAME>=VERSION`` of a pyproject.toml."""
    found = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    dependencies = found["dependencies"] + [
        line for extra in EXTRAS for line in found["optional-dependencies"][extra]
    ]
    return [re.sub(r"^([\w.-]+)>=([\d.]+)$", r"\1==\2", line) for line in dependencies]


if __name__ == "__main__":
    print("\n".join(floors(Path(__file__).parents[1] / "pyproject.toml")))
