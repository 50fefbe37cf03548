"""Clones of this project that benchmarks run flows in, so that what is measured is what is committed."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def clone(target: Path) -> Path:
    """This project as it is committed."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(target)], check=True)
    return target


def environment(project: Path) -> dict[str, str]:
    """Variables of a command in a clone: its own modules and its own Prefect database, the same packages."""
    return {**os.environ, "PYTHONPATH": str(project), "PREFECT_HOME": str(project / ".prefect")}
