"""Print the lowest declared versions of the run-time packages for pip.

    python scripts/floors.py > floors.txt

The output is a file of constraints.
"""

import re
import tomllib
from pathlib import Path


def floors(project: Path) -> list[str]:
    """Return a line ``NAME==VERSION`` for each dependency ``NAME>=VERSION``.

    `project` is the path of a pyproject.toml.
    """
    dependencies = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [re.sub(r"^([\w.-]+)>=([\d.]+)$", r"\1==\2", line) for line in dependencies]


if __name__ == "__main__":
    print("\n".join(floors(Path(__file__).parents[1] / "pyproject.toml")))
