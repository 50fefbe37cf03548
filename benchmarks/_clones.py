"""Clones of this project in which benchmarks run flows, so that the committed state is measured."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def clone(target: Path) -> Path:
    """Clone the committed state of this project to `target`."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(target)], check=True)
    return target


def environment(project: Path) -> dict[str, str]:
    """Environment of a command in a clone: the clone's modules and Prefect database, this environment's packages."""
    return {**os.environ, "PYTHONPATH": str(project), "PREFECT_HOME": str(project / ".prefect")}
