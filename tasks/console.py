"""Shared by all commands: progress bars, common arguments, exit codes."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from segcore.params import architecture_names
from tasks.failures import reported
from tasks.supervisor import die_with_parent

T = TypeVar("T")


def progress(items: Iterable[T], label: str, total: int | None = None, unit: str = "it") -> "tqdm[T]":
    """A progress bar on standard error, in the same style for every stage."""
    return tqdm(
        items, desc=f"{label:<22}", total=total, unit=unit, dynamic_ncols=True, mininterval=0.5, leave=True
    )


def note(line: str) -> None:
    """Print a line on standard error: a flow shows that of its stages, and drops their standard output."""
    print(line, file=sys.stderr, flush=True)


def run(main: Callable[[argparse.Namespace], Any], parser: argparse.ArgumentParser) -> None:
    """Parse arguments and run `main`. Exit codes: 0 done, 1 error (printed with its remedy), 130 interrupted by Ctrl-C.

    SIGTERM and the death of the parent process also end it with clean-up.
    """
    die_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    arguments = parser.parse_args()
    with reported():
        main(arguments)


def refuse_as_script(name: str) -> None:
    """Exit with status 2 if a command's module is run as a script, such as `python -m tasks.train`.

    Args:
        name: `__name__` of the module.
    """
    if name == "__main__":
        command = Path(sys.argv[0]).stem.replace("_", "-")
        print(f"Error: not a command; run `python -m tasks {command}`", file=sys.stderr)
        sys.exit(2)


def parse_run(description: str | None, name: str) -> argparse.ArgumentParser:
    """Parser of the arguments that `train` and `evaluate` share."""
    parser = argparse.ArgumentParser(prog=f"python -m tasks {name}", description=description)
    parser.add_argument("architecture", help="one of " + ", ".join(architecture_names()))
    parser.add_argument("seed", type=_seed, help="one of `seeds` in params.yaml, or any other integer >= 0")
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    return parser


def _seed(word: str) -> int:
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word} is not an integer >= 0")
    return int(word)
