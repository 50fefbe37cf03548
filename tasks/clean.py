"""Free disk space: old MLflow runs, objects in DVC's cache, and what earlier commands left in work/ and predictions/.

`python -m tasks clean --keep 10` prints what it would free, then frees it. Kept are the last 10 comparisons of this
data set, other data sets, every batch, decision and report, what dvc.lock needs, and all models that are or were
champion. Killed at any time and run again, it completes.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from segcore import params
from segcore.files import alone, is_locked
from segcore.params import Params
from segcore.parts import left_parts
from tasks import batches, console
from tasks.project import (
    CHAMPIONS,
    CHECKPOINTS,
    COMPARE_LOCK,
    DECISIONS,
    ENSEMBLES,
    EVALUATIONS,
    EXPORTS,
    FETCHED,
    GATE_COSTS,
    INGESTED,
    MODELS,
    PREDICTIONS,
    PROMOTE_LOCK,
    RECEIVED,
    REPORTS,
    RETRAIN_LOCK,
    SPLITS,
    START,
    WORK,
)
from tasks.promotion.history import RegisteredVersion, read_history
from tasks.promotion.record import records
from tasks.tracking import store
from tasks.versioning import stages
from tasks.versioning.dvc_command import answer_of

# aliases of models that may be needed at once
_IN_USE = {"champion", "previous", "challenger"}


@dataclass(frozen=True)
class Waste:
    """One kind of what can be freed.

    Attributes:
        kind: name for the table.
        number: how many.
        size: bytes.
        free: removes them.
    """

    kind: str
    number: int
    size: int
    free: Callable[[], object]


def clean(p: Params, keep: int, dry_run: bool = False) -> None:
    """Print what can be freed, and free it.

    Args:
        p: parameters.
        keep: number of comparisons that are kept.
        dry_run: print only.

    Raises:
        StageError: a round, a comparison, a promotion or a DVC command runs, or MLflow, DVC or git failed.
        DataError: a decision or history.json cannot be read, so that the champions are not known.
    """
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(alone(RETRAIN_LOCK, "a round of retraining"))
            stack.enter_context(alone(COMPARE_LOCK, "a comparison"))
            stack.enter_context(alone(PROMOTE_LOCK, "a promotion"))
            stack.enter_context(alone(RECEIVED / p.data.name / "lock", "receiving"))
        found = survey(p, keep)
        print("\n".join(table(found)), flush=True)
        if dry_run:
            print("Nothing was freed (--dry-run).")
            return
        for waste in found:
            waste.free()
        print(f"Freed {_megabytes(sum(waste.size for waste in found))}.")


def survey(p: Params, keep: int) -> list[Waste]:
    """What can be freed now, by kind; kinds of which there is nothing are left out."""
    versions = [row for name in _datasets(p) for row in read_history(Path(), name)]
    registered, runs, before = _mlflow(p, keep)
    in_use = {row.weights_sha256 for row in (*versions, *registered) if _IN_USE.intersection(row.aliases)}
    found = [*runs, *_dvc(p, keep, _needed(p, [*versions, *registered]))]
    old_measurements = [path for path in GATE_COSTS.glob("*") if before and _changed(path) < before]
    numbers = {str(row.version) for row in registered if _IN_USE.intersection(row.aliases)}
    unused = [path for path in _unused_models(CHAMPIONS, in_use) if path.name not in numbers]
    unused += _unused_models(FETCHED, in_use)
    folders = {
        "copies of the inbox": [path for path in (RECEIVED / p.data.name).glob("snapshot*") if path.is_dir()],
        "downloaded models": [path for path in unused if not is_locked(path.with_name(f".{path.name}.lock"))],
        "measured costs": old_measurements,
        "checkpoints": _finished_checkpoints(),
        "parts of killed commands": _left_parts(p),
        "parts of predictions": [] if is_locked(PREDICTIONS / ".lock") else list(PREDICTIONS.glob(".*.part")),
    }
    found += [_of_paths(kind, paths) for kind, paths in folders.items()]
    return [waste for waste in found if waste.number]


def table(found: list[Waste]) -> list[str]:
    """One line per kind, with number and size."""
    rows = [(waste.kind, str(waste.number), _megabytes(waste.size)) for waste in found]
    rows.append(("total", "", _megabytes(sum(waste.size for waste in found))))
    return [
        f"{kind:<24} {number:>8} {size:>12}" for kind, number, size in [("kind", "number", "size"), *rows]
    ]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _datasets(p: Params) -> list[str]:
    """Data sets with decisions; the present one first."""
    return list(
        dict.fromkeys([p.data.name, *(path.name for path in sorted(DECISIONS.glob("*")) if path.is_dir())])
    )


def _mlflow(p: Params, keep: int) -> tuple[list[RegisteredVersion], list[Waste], float | None]:
    """Registered versions, old runs, and the time in s before which runs are old."""
    address = store.uri(p)
    file = Path(address.removeprefix("sqlite:///"))
    if address.startswith("sqlite:///") and not file.exists():
        # opening it would create a store
        return [], [], None
    from tasks.tracking.clean import delete_runs, old_runs
    from tasks.tracking.registry import Registry
    from tasks.tracking.tracker import Tracker

    tracker = Tracker.open(p)
    old = old_runs(tracker, keep, set(stages.run_keys().values()))
    waste = Waste("MLflow runs", len(old.ids), old.size, lambda: delete_runs(tracker, old.ids))
    return Registry(tracker).history(), [waste], None if old.before is None else old.before / 1000


def _needed(p: Params, versions: Iterable[RegisteredVersion]) -> list[str]:
    """Hashes of the weights of all models that are or were champion, also by decisions that were not acted upon yet."""
    weights = {row.weights_sha256 for row in versions if _was_used(row)}
    for name in _datasets(p):
        winners = [(one, one.winner) for one in records(Path(), name) if one.winner is not None]
        weights |= {record.challenger(winner).weights_sha256 for record, winner in winners}
    return sorted(one for one in weights if one is not None)


def _dvc(p: Params, keep: int, weights: list[str]) -> list[Waste]:
    if not Path(".dvc").is_dir():
        return []
    arguments = [p.data.name, "--keep", str(keep), "--weights", *weights]
    module = "tasks.versioning.unused_objects"
    answer = answer_of(module, *arguments)
    if "outside" in answer:
        print(
            f"DVC's cache {answer['outside']} is outside of this project and may be shared: it is left as it is"
        )
        return []
    objects, bytes_of_objects = answer["objects"]
    entries, bytes_of_entries = answer["entries"]
    return [
        Waste("DVC objects", objects, bytes_of_objects, lambda: answer_of(module, *arguments, "--remove")),
        # removed with the objects
        Waste("DVC run cache entries", entries, bytes_of_entries, lambda: None),
    ]


def _was_used(row: RegisteredVersion) -> bool:
    return bool(row.promoted or row.restored or _IN_USE.intersection(row.aliases))


def _unused_models(place: Path, in_use: set[str | None]) -> list[Path]:
    """Folders of downloaded models whose weights are not in use; they are downloaded again when needed."""
    folders = [path for path in sorted(place.glob("[!.]*")) if path.is_dir()]
    return [path for path in folders if (weights := _weights(path)) is None or weights not in in_use]


def _weights(bundle: Path) -> str | None:
    try:
        content = json.loads((bundle / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("weights_sha256") if isinstance(content, dict) else None


def _finished_checkpoints() -> list[Path]:
    """Folders of checkpoints, `<training>-<key>`, that are older than the model of that training."""
    finished = []
    for folder in sorted(CHECKPOINTS.glob("*")):
        model = MODELS / folder.name.rpartition("-")[0] / "model.json"
        if folder.is_dir() and model.is_file() and _changed(folder) < model.stat().st_mtime:
            finished.append(folder)
    return finished


def _left_parts(p: Params) -> list[Path]:
    """Unfinished outputs of killed commands, in the folders that this project writes to."""
    models = (MODELS, EVALUATIONS, ENSEMBLES / MODELS, ENSEMBLES / EVALUATIONS)
    outputs = (INGESTED.parent, SPLITS, *models, REPORTS, DECISIONS, START, WORK)
    places = {Path(), *outputs, batches.folder_of(p)}
    places.update(*(top.glob("*") for top in (REPORTS, DECISIONS, WORK, EXPORTS)), WORK.glob("*/*"))
    found = [part for place in sorted(places) if place.is_dir() for part in left_parts(place)]
    # the others are previous content, which the next write puts back or removes
    return [part for part in found if part.suffix == ".part"]


def _changed(path: Path) -> float:
    """Time of the last change in a folder, in s since 1970."""
    return max(one.stat().st_mtime for one in (path, *path.rglob("*")))


def _of_paths(kind: str, paths: list[Path]) -> Waste:
    files = [file for path in paths for file in (path, *path.rglob("*")) if file.is_file()]

    def free() -> None:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    return Waste(kind, len(paths), sum(file.stat().st_size for file in files), free)


def _number(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} is not an integer >= 1")
    return int(word)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks clean", description=__doc__)
    parser.add_argument("--keep", type=_number, default=10, help="comparisons to keep (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be freed, and free nothing")
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(lambda a: clean(params.load(a.params), a.keep, a.dry_run), parser)


console.refuse_as_script(__name__)
