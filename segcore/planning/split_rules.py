"""The rules of how scenes are divided, and of the spacing of volumes; see segcore/planning/rules.py."""

from collections.abc import Mapping
from typing import Any

from segcore.params.data import Data
from segcore.params.folds import fill

Facts = Mapping[str, Any]
Chosen = Mapping[str, Any]
# value, what was measured, and the sentence for people
Found = tuple[Any, str, str]

# side of a crop as the network sees it, in pixels, and shortest of a block: U-Net and FCN see about as far, and eight
# of them fit a step of seconds on two cores
SIDE = 256
# ratio of spacings from which volumes are resampled; augmentation changes sizes by more than less
_ALIKE = 1.1
# groups below which scenes are divided into blocks, and blocks along their side
_FEW, _BLOCKS = 8, 8
# test groups from which one split is enough; folds where fewer would be tested, and the fewest
_FEW_TESTED, _FOLDS, _LEAST_FOLDS = 5, 5, 3
PROPOSED = "proposed: "
# groups from which a tenth is enough for validation
_MANY = 100


def count(number: int, what: str) -> str:
    """Such as "1 group", "5 groups"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def fractions(facts: Facts, _: Data, __: Chosen) -> Found:
    """Shares of training, validation and test."""
    groups, measured = facts["groups"], count(facts["groups"], "group")
    if groups >= _MANY:
        return (
            {"train": 0.7, "validation": 0.1, "test": 0.2},
            measured,
            "a tenth of so many groups is enough to select weights by, a fifth to test",
        )
    return (
        {"train": 0.6, "validation": 0.15, "test": 0.25},
        measured,
        "of few groups more are tested, so that intervals mean something",
    )


def block(facts: Facts, _: Data, __: Chosen) -> Found:
    """Side of blocks, where scenes are few and large."""
    groups, side = facts["groups"], min(facts["height"][1], facts["width"][1])
    measured = f"{count(groups, 'group')}, median shorter side {side:g} pixels"
    length = round(side / _BLOCKS)
    if groups < _FEW and length >= SIDE:
        return (
            length,
            measured,
            f"scenes are divided into about {_BLOCKS} by {_BLOCKS} blocks, as groups are few",
        )
    return (
        None,
        measured,
        "groups are the units of the split" if groups >= _FEW else "scenes are too small to divide",
    )


def buffer(_: Facts, __: Data, chosen: Chosen) -> Found:
    """Pixels between blocks."""
    block = chosen["split.block"]
    if block is None:
        return 0, "no blocks", "no blocks, no buffer between them"
    return 32, f"blocks of {block} pixels", "pixels between blocks of different splits that are not used"


def spacing(facts: Facts, data: Data, chosen: Chosen) -> Found:
    """Median spacing of planes, where volumes differ."""
    rows, columns = (facts["pixel_sizes"].get(f"mm: {axis}") for axis in ("rows", "columns"))
    if not facts["volumes"] or not rows or not columns:
        return None, "no volumes with a spacing", "images keep their own pixels"
    measured = f"rows {rows[0]:g} to {rows[2]:g} mm, columns {columns[0]:g} to {columns[2]:g} mm"
    if data.has_objects or chosen["split.block"] is not None:
        return None, measured, "volumes with objects, or divided into blocks, keep their own pixels"
    if max(rows[2] / rows[0], columns[2] / columns[0]) < _ALIKE:
        return None, measured, "planes are alike, and keep their own pixels"
    return (
        [rows[1], columns[1]],
        measured,
        "planes are resampled to the median for the network; predictions are on their own grid",
    )


def folds(facts: Facts, data: Data, chosen: Chosen) -> Found:
    """Cross-validation where few groups would be tested; null, with the proposal, where the seeds do not train it."""
    units, kind = _units(facts, chosen["split.block"])
    tested = round(units * chosen["split.fractions"]["test"])
    measured = f"{count(units, kind)}, about {tested} of them in a test split"
    if tested >= _FEW_TESTED:
        return None, measured, f"at least {_FEW_TESTED} are tested by one split"
    if facts["has_splits"] or chosen["split.given"]:
        return None, measured, "few are tested, but their splits are given"
    if chosen["evaluate.ensemble"]:
        return None, measured, "few are tested, but the networks of an ensemble are trained on one split"
    folds = min(_FOLDS, units)
    if folds < _LEAST_FOLDS:
        return (
            None,
            measured,
            f"with fewer than {_LEAST_FOLDS} {kind}s no fold has training, validation and test",
        )
    if fill(chosen["seeds"], folds):
        return folds, measured, f"few are tested by one split; in {folds} folds each is tested once"
    settings = f"{PROPOSED}split.folds: {folds} and seeds: {list(range(folds))}"
    return None, measured, f"{settings} test each {kind} once, by {folds} trainings per architecture"


def _units(facts: Facts, block: int | None) -> tuple[int, str]:
    """Number of what is divided between splits, and whether it is a block or a group."""
    height, width = facts["height"][1], facts["width"][1]
    if block is None or max(height, width) < 2 * block:
        return facts["independent"], "group"
    return facts["items"] * max(1, round(height / block)) * max(1, round(width / block)), "block"
