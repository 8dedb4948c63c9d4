"""Print the lowest declared version of each run-time package, as constraints for pip.

python scripts/floors.py > floors.txt
"""

import re
import tomllib
from pathlib import Path


def floors(project: Path) -> list[str]:
    """Return a line ``NAME==VERSION`` for each dependency ``NAME>=VERSION`` of a pyproject.toml."""
    dependencies = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [re.sub(r"^([\w.-]+)>=([\d.]+)$", r"\1==\2", line) for line in dependencies]


if __name__ == "__main__":
    print("\n".join(floors(Path(__file__).parents[1] / "pyproject.toml")))
