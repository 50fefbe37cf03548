"""The rules of the plan: from the fingerprint of the data to the settings that are `auto` in params.yaml.

A rule sees the fingerprint and what was decided before it, settings fixed by hand included, so that the window follows
a crop that a person chose. No rule looks at the machine: equal data have equal plans everywhere, and a batch that does
not fit into memory is divided when a training starts (`train.common.speed.micro_batch`), which changes no result.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from segcore.params.data import Data
from segcore.params.planned import AUTO, PLANNED
from segcore.planning import split_rules
from segcore.planning.fingerprint import foreground_share
from segcore.planning.split_rules import PROPOSED, SIDE, Chosen, Facts, Found, count


class Decision(NamedTuple):
    """One setting of the plan.

    Attributes:
        key: of params.yaml, such as "train.common.crop".
        value: as in params.yaml.
        by: "plan", or "hand" where params.yaml has a value.
        source: paper or experiment that the rule rests on; empty by hand.
        measured: what was measured; empty by hand.
        sentence: why, for people.
    """

    key: str
    value: Any
    by: str
    source: str
    measured: str
    sentence: str


class Rule(NamedTuple):
    """How a setting follows from the data, and the source of the rule."""

    find: Callable[[Facts, Data, Chosen], Found]
    source: str


# sides of crops as the network sees them, in pixels
_SIDES = (64, 96, 128, 192, 256)
# pixels of a step as the network sees them, and most crops: 8 of 256, 16 of 128
_PIXELS, _MOST = 8 * SIDE**2, 16
# structures narrower than this many pixels are enlarged: decoders end at stride 4 (DeepLabV3+) or 2 (U-Net)
_NARROW = 10
# a crop is at least this many structures wide
_ACROSS = 3
# side of a tile as the network sees it
_TILE = 704
# steps of the budget `quick`; of `standard` for a dataset of _REFERENCE training pixels, and the limits of its growth
_QUICK, _STANDARD, _REFERENCE, _GROWTH = 60, 400, 8e6, (0.75, 3.0)
_TIMES = {"standard": 1, "thorough": 4}


def plan(facts: Facts, data: Data, asked: Mapping[str, Any]) -> list[Decision]:
    """Decide all settings of `segcore.params.planned.PLANNED`, in the order of RULES.

    Args:
        facts: of `segcore.planning.fingerprint.fingerprint`.
        data: settings.
        asked: by key: the value in params.yaml, or "auto"; also "train.common.budget", "split.given",
            "evaluate.ensemble", "seeds", and "defaults", the keys that params.yaml lacks in sections set by hand.
    """
    chosen, decisions = dict(asked), []
    for key, rule in RULES.items():
        if asked[key] != AUTO:
            decisions.append(Decision(key, asked[key], "hand", "", "", _by_hand(key, facts, data, chosen)))
            continue
        value, measured, sentence = rule.find(facts, data, chosen)
        chosen[key] = value
        decisions.append(Decision(key, value, "plan", rule.source, measured, sentence))
    return decisions


def _by_hand(key: str, facts: Facts, data: Data, chosen: Chosen) -> str:
    """Why a setting has a value that the plan did not choose; small data say so even then."""
    how = "default, in a section set by hand" if key in chosen["defaults"] else "set in params.yaml"
    if key == "split.folds" and chosen[key] is None:
        sentence = RULES[key].find(facts, data, {**chosen, "seeds": []})[2]
        if sentence.startswith(PROPOSED):
            return f"{how}; {sentence}"
    return how


def view(facts: Facts, data: Data) -> tuple[str | None, str]:
    """`data.view`, or what the data suggest, and the reason; None if they do not tell."""
    if data.view:
        return data.view, f"data.view: {data.view}"
    if facts["volumes"]:
        return "volume", "images are volumes"
    if facts["positioned"]:
        return "nadir", "images have a position on the earth"
    return None, "data.view is not set, and images have no position on the earth"


def _normalization(facts: Facts, _: Data, __: Chosen) -> Found:
    measured = f"{count(facts['bands'], 'band')} of {facts['dtype']}"
    if facts["bands"] == 3 and facts["dtype"] == "uint8":
        return "imagenet", measured, "pretrained encoders expect the mean and deviation of their own images"
    return (
        "data",
        measured,
        "mean and deviation of the training split, since pretrained encoders know no such values",
    )


def _loss(facts: Facts, data: Data, _: Chosen) -> Found:
    measured = f"{foreground_share(facts, data):.1%} of the pixels are foreground"
    return (
        "dice_cross_entropy",
        measured,
        "Dice keeps rare classes, cross-entropy calibrates; one sum for all data",
    )


def _magnify(facts: Facts, _: Data, __: Chosen) -> Found:
    widths = {name: found["width"] for name, found in facts["structures"].items()}
    if not widths:
        return 1, "no foreground", "nothing to enlarge"
    name = min(widths, key=lambda each: widths[each])
    measured = f"{name} is {widths[name]:g} pixels wide"
    if widths[name] < _NARROW:
        return (
            2,
            measured,
            f"below {_NARROW} pixels a structure is lost in maps of stride 4, so images are enlarged",
        )
    return 1, measured, "structures are wide enough for maps of stride 4"


def _crop(facts: Facts, _: Data, chosen: Chosen) -> Found:
    magnify = chosen["train.common.magnify"]
    side = max((found["side"] for found in facts["structures"].values()), default=SIDE)
    short = min(facts["height"][1], facts["width"][1])
    measured = f"structures of up to {side:g} pixels, images of {short:g}"
    wanted = min((s for s in _SIDES if s >= _ACROSS * side * magnify), default=SIDE) / magnify
    # a crop larger than most images would be filled with nothing
    limit = -(-short // 16) * 16
    if chosen["prepare.window"] != AUTO:
        limit = min(limit, chosen["prepare.window"])
    crop = int(max(16, min(wanted, limit)))
    how = f"{_ACROSS} structures, at most {SIDE} pixels of the network"
    return crop, measured, f"a crop holds {'a whole image or window' if crop < wanted else how}"


def _batch(_: Facts, __: Data, chosen: Chosen) -> Found:
    seen = chosen["train.common.crop"] * chosen["train.common.magnify"]
    batch = int(max(2, min(_MOST, _PIXELS // seen**2)))
    return (
        batch,
        f"crops of {seen:g} pixels of the network",
        f"as many pixels as 8 crops of {SIDE}, at most {_MOST} crops",
    )


def _window(_: Facts, __: Data, chosen: Chosen) -> Found:
    crop = chosen["train.common.crop"]
    return (
        -(-crop * 5 // 4 // 16) * 16,
        f"crop {crop}",
        "a quarter more than a crop, so that crops are shifted and zoomed",
    )


def _stride(_: Facts, __: Data, chosen: Chosen) -> Found:
    crop = chosen["train.common.crop"]
    return (
        max(16, crop // 4),
        f"crop {crop}",
        "a quarter of a crop: each structure is seen whole in several windows",
    )


def _foreground(facts: Facts, data: Data, _: Chosen) -> Found:
    share = foreground_share(facts, data)
    measured = f"{share:.1%} of the pixels are foreground"
    if share < 0.08:
        return 0.67, measured, "random crops would often be empty"
    return 0.5, measured, "half of the crops are placed on foreground, each class alike"


def _steps(facts: Facts, _: Data, chosen: Chosen) -> Found:
    budget, share = chosen["train.common.budget"], chosen["split.fractions"]["train"]
    pixels = facts["pixels"] * share
    measured = f"{pixels / 1e6:.3g} million training pixels, budget {budget}"
    if budget == "quick":
        return _QUICK, measured, "enough to see that all runs, too few to rank networks by"
    growth = min(max((pixels / _REFERENCE) ** 0.5, _GROWTH[0]), _GROWTH[1])
    steps = round(_STANDARD * _TIMES[budget] * growth / 20) * 20
    return steps, measured, "grows with the square root of the training pixels"


def _validate(_: Facts, __: Data, chosen: Chosen) -> Found:
    steps = chosen["train.common.steps"]
    parts = 3 if steps <= _QUICK else 6
    return max(1, steps // parts), f"{steps} steps", f"{parts} validations"


def _rate(_: Facts, __: Data, ___: Chosen) -> Found:
    return 0.002, "", "one rate for all: 0.001 to 0.004 gave the same scores on four sets"


def _flip(facts: Facts, data: Data, _: Chosen) -> Found:
    seen, measured = view(facts, data)
    if seen in ("nadir", "microscope"):
        return True, measured, "seen from above nothing is up or left"
    if seen == "volume":
        return False, measured, "left, right, front and back of a body differ"
    if seen == "street":
        return "horizontal", measured, "a street may be mirrored, but the sky is above"
    return (
        "horizontal",
        measured,
        "mirrored left to right only; with data.view: nadir or microscope also up and down",
    )


def _turns(facts: Facts, data: Data, _: Chosen) -> Found:
    seen, measured = view(facts, data)
    if seen in ("nadir", "microscope"):
        return True, measured, "seen from above there is no up"
    return (
        False,
        measured,
        "up and down differ" if seen else "with data.view: nadir or microscope also quarter turns",
    )


def _tile(_: Facts, __: Data, chosen: Chosen) -> Found:
    magnify = chosen["train.common.magnify"]
    tile = int(_TILE / max(1, magnify)) // 32 * 32
    return tile, f"magnify {magnify}", f"at most {_TILE} pixels of the network, which need less than 2 GB"


def _overlap(_: Facts, __: Data, chosen: Chosen) -> Found:
    crop, tile = chosen["train.common.crop"], chosen["evaluate.tile"]
    return min(max(16, crop // 4), tile // 2), f"crop {crop}", "a quarter of a crop, blended"


_LOG = "docs/notes/tuning.md"
_NNUNET = "Isensee et al. 2021"
# in the order in which they are decided
RULES: dict[str, Rule] = {
    "split.fractions": Rule(split_rules.fractions, "Holm's correction of three tests needs 8 test groups"),
    "split.block": Rule(split_rules.block, "spatial blocks: Roberts et al. 2017, Ecography 40:913"),
    "split.buffer": Rule(split_rules.buffer, "spatial blocks: Roberts et al. 2017, Ecography 40:913"),
    "prepare.spacing": Rule(split_rules.spacing, f"{_NNUNET}: volumes are resampled to the median spacing"),
    "split.folds": Rule(
        split_rules.folds,
        "5 or 10 folds: Kohavi 1995, IJCAI; of 4 groups no p-value of a permutation test is below .12",
    ),
    "train.common.normalization": Rule(_normalization, "torchvision's and timm's encoders"),
    "train.common.loss": Rule(_loss, f"{_NNUNET}: the sum of Dice and cross-entropy on 23 datasets"),
    "train.common.magnify": Rule(_magnify, f"{_LOG}: hippocampus and nuclei"),
    "train.common.crop": Rule(_crop, f"{_NNUNET}: patches as large as images or memory allow"),
    "train.common.batch": Rule(_batch, f"{_LOG}: more crops of fewer pixels on nuclei and Amazon"),
    "prepare.window": Rule(_window, "zoom of augment.scale 1.25"),
    "prepare.stride": Rule(_stride, "half of nnU-Net's tile step"),
    "train.common.foreground_share": Rule(
        _foreground, f"{_NNUNET} oversamples a third; {_LOG}: 0.3 to 0.8 are alike"
    ),
    "train.common.steps": Rule(
        _steps, f"{_LOG}: levelled off after 440 (8 million pixels) to 1,200 (50 million)"
    ),
    "train.common.validate_every": Rule(_validate, "three validations show whether scores still rise"),
    "train.common.learning_rate": Rule(_rate, _LOG),
    "train.common.augment.flip": Rule(_flip, "symmetries of the view"),
    "train.common.augment.rotate90": Rule(_turns, "symmetries of the view"),
    "evaluate.tile": Rule(_tile, "docs/guide/speed.md"),
    "evaluate.overlap": Rule(_overlap, "half of nnU-Net's tile step"),
}
assert set(RULES) == set(PLANNED)
