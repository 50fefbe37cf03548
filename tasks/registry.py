"""Compare the model registry with the records in decisions/, and restore one from the other.

`python -m tasks registry` prints the versions of both and whether they agree (exit code 1 if not). `--rebuild` restores
registry, aliases and history from decisions, bundles and DVC's cache. `--accept` writes the registry's state to the
records, for example after an alias was moved in MLflow's UI on purpose.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from segcore import params
from segcore.errors import StageError
from tasks import console
from tasks.promotion import agreement, publish, rebuild
from tasks.promotion.history import RegisteredVersion
from tasks.promotion.recorded import recorded
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker

_HEADER = f"{'version':>7}  {'model':<24} {'weights':<12}  {'score':>7}  {'registry':<20} records"


def table(records: Mapping[int, RegisteredVersion], registered: Mapping[int, RegisteredVersion]) -> list[str]:
    """One line per version, newest first, with its aliases in the registry and in the records."""
    lines = [_HEADER]
    for number in sorted({*records, *registered}, reverse=True):
        in_records, in_registry = records.get(number), registered.get(number)
        row = in_registry or in_records
        if row is None:
            continue
        model = f"{row.title or row.architecture or '?'} (seed {row.seed})"
        weights = (row.weights_sha256 or "?")[:12]
        cells = f"{number:>7}  {model:<24} {weights:<12}  {_score(row):>7}"
        lines.append(f"{cells}  {_state(in_registry):<20} {_state(in_records)}")
    return lines


def _score(row: RegisteredVersion) -> str:
    score = row.scores.get("frozen")
    return f"{score:.4f}" if isinstance(score, int | float) else "–"


def _state(row: RegisteredVersion | None) -> str:
    if row is None:
        return "missing"
    return "deleted" if row.deleted else ", ".join(row.aliases) or "yes"


def _show(registry: Registry) -> None:
    known = recorded(Path(), registry.name)
    rows = registry.history()
    for line in table(known.versions, {row.version: row for row in rows}):
        print(line)
    registry.require_agreement(Path(), dry_run=True)
    print(f"registry: {agreement.place(registry)} and decisions/{registry.name} agree")


def _main(arguments: argparse.Namespace) -> None:
    p = params.load(arguments.params)
    registry = Registry(Tracker.open(p))
    problem: StageError | None = None
    if arguments.accept:
        lines = rebuild.accept(registry, Path())
    elif arguments.rebuild:
        lines, problem = rebuild.rebuild(registry, Path(), p)
    else:
        _show(registry)
        return
    print("\n".join(lines), flush=True)
    publish.commit_records(p, f"Registry of {registry.name}", lines[0])
    if problem is not None:
        raise problem


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks registry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--rebuild", action="store_true", help="restore the registry from the records")
    group.add_argument("--accept", action="store_true", help="write the registry's state to the records")
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(_main, parser)


console.refuse_as_script(__name__)
