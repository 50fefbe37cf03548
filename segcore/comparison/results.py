"""The result of a comparison as dataclasses; `Comparison.to_json` is the content of comparison.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segcore.errors import DataError

_DECIMALS = 6


@dataclass(frozen=True)
class Score:
    """One score: the mean over seeds, its interval, and the seeds' standard deviation.

    Attributes:
        estimate: in the metric's own range; in [0, 1] for "%".
        low, high: ends of the interval; None without an interval.
        seed_std: None with one seed.
    """

    estimate: float
    low: float | None
    high: float | None
    seed_std: float | None


@dataclass(frozen=True)
class Difference:
    """A difference of two scores with the ends of its interval; they are None without an interval."""

    difference: float
    low: float | None
    high: float | None

    def times(self, sign: int) -> "Difference":
        """The difference multiplied by 1 or -1; -1 exchanges the ends of the interval."""
        if sign == 1:
            return self
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Difference(-self.difference, low, high)

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and it excludes 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class PairTest:
    """Two architectures on the headline score: `a` is the better one, the difference is a - b.

    Attributes:
        p: of the permutation test; p_holm: corrected for the number of pairs.
        significant: p_holm is below the level and the interval excludes 0.
    """

    a: str
    b: str
    difference: float
    low: float | None
    high: float | None
    p: float
    p_holm: float
    significant: bool


@dataclass(frozen=True)
class LeaderboardRow:
    """One architecture or annotator.

    Attributes:
        architecture: its key; title: its printed name.
        kind: "model", "human", or "limit": the most that a method can reach, from perfect masks.
        rank: None for a human or a limit.
        seeds: number of evaluations.
        scores: by score key (segcore.metrics.scores).
        summary: content of the first seed's summary.json; None for a human or a limit.
    """

    architecture: str
    title: str
    kind: str
    rank: int | None
    seeds: int
    scores: dict[str, Score]
    summary: dict[str, Any] | None


@dataclass(frozen=True)
class Slice:
    """Scores on the test images with one text for a word of the data patterns.

    Scores are means of the foreground classes that have a true pixel in the slice, pooled over its pixels.

    Attributes:
        word, text: such as "site" and "oslo"; the text is None where rare ones are pooled.
        pooled: number of texts, 1 unless they are pooled.
        images, clusters: numbers of scored images and of their clusters.
        absent: foreground classes without a true pixel in the slice.
        scores: architecture -> score, without an interval if there is one cluster; empty if all classes are absent.
        overall: architecture -> score of the same classes on all test images.
    """

    word: str
    text: str | None
    pooled: int
    images: int
    clusters: int
    absent: list[str]
    scores: dict[str, Score]
    overall: dict[str, float]


@dataclass(frozen=True)
class ObjectsSummary:
    """Figures of objects besides the scores.

    Attributes:
        policy: what counts as right.
        truth: "given", or "components": the true objects are connected components of the masks.
        sizes: least (not included) and largest area in pixels of small, medium and large objects, which are thirds of
            the true objects; None: no limit.
        counts: architecture -> class -> true (number of true objects), predicted (mean of the seeds), low and high
            (95 % interval of the true number from the predicted one and the validation split; None without one).
        operating: architecture -> score (least scores of a predicted object, rising; they differ between seeds), and
            precision, recall and count_bias on the validation split, means of the seeds; None where they were not
            measured.
        pooled: contestant -> f1, precision, recall and count_bias on the test images at the operating score, of the
            objects of all foreground classes together as on the validation split; means of the seeds.
        validation: architecture -> method (components, watershed) -> F1 on the validation split, mean of the seeds.
    """

    policy: str
    truth: str
    sizes: dict[str, list[float | None]]
    counts: dict[str, dict[str, dict[str, float | None]]]
    operating: dict[str, dict[str, Any]]
    pooled: dict[str, dict[str, float]] = field(default_factory=dict)
    validation: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SurfacesSummary:
    """Figures of surfaces besides the scores.

    Attributes:
        policy: what is compared, and how classes count that are missed in a whole volume.
        tolerance: of NSD, in mm.
        volumes: number of volumes with a spacing.
        missed: architecture -> class -> number of volumes with the class in only one of truth and prediction, mean of
            the seeds; only classes with any.
    """

    policy: str
    tolerance: float
    volumes: int
    missed: dict[str, dict[str, float]]


@dataclass(frozen=True)
class AnnotatorsSummary:
    """Scores against each of several annotators, whose majority is the ground truth; means of the foreground classes.

    Attributes:
        metric: a name in segcore.metrics.METRICS, of pixels.
        scores: annotator -> architecture, or "majority" for that of all annotators -> score against this annotator.
        mean: architecture, or "majority" -> mean of its scores against all annotators.
        others: annotator -> mean of the scores of all others against this one.
        agreement: mean of all pairs of annotators.
    """

    metric: str
    scores: dict[str, dict[str, Score]]
    mean: dict[str, Score]
    others: dict[str, Score]
    agreement: Score


@dataclass(frozen=True)
class Comparison:
    """The whole result; fields in the order of comparison.json.

    Attributes:
        metric: a name in segcore.metrics.METRICS; headline: the score key that determines the ranks.
        colors: RGB per class.
        cluster_kind: "block" or "group".
        verdict: one or two sentences; notes: limits of the numbers.
        leaderboard: best model first, then limits, humans last.
        differences: training setting -> architecture -> value, only settings that differ.
        slices: empty where the data patterns have no words that divide the test images.
        objects: None where the data have no objects.
        surfaces: None where the data have no volumes with a spacing.
        annotators: None where the ground truth is of one.
        folds: of a cross-validation, in which every image is tested once per round of seeds; None: one test split.
    """

    dataset: str
    metric: str
    headline: str
    classes: list[str]
    colors: list[list[int]]
    test_images: int
    clusters: int
    cluster_kind: str
    seeds: list[int]
    confidence: float
    bootstrap: int
    empty_policy: str
    verdict: str
    notes: list[str]
    leaderboard: list[LeaderboardRow]
    tests: list[PairTest]
    differences: dict[str, dict[str, Any]]
    slices: list[Slice] = field(default_factory=list)
    objects: ObjectsSummary | None = None
    surfaces: SurfacesSummary | None = None
    annotators: AnnotatorsSummary | None = None
    folds: int | None = None

    @property
    def rounds(self) -> int:
        """Number of evaluations of each test image: of seeds, or with folds of rounds of folds."""
        return len(self.seeds) // (self.folds or 1)

    @property
    def models(self) -> list[LeaderboardRow]:
        """Architectures, best first."""
        return [row for row in self.leaderboard if row.kind == "model"]

    @property
    def titles(self) -> dict[str, str]:
        """Printed name of each architecture and human."""
        return {row.architecture: row.title for row in self.leaderboard}

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values, numbers rounded to 6 decimals: the same on every machine.

        Without slices, objects, surfaces, annotators or folds there are no such keys.
        """
        rounded: dict[str, Any] = _rounded(asdict(self))
        for key in ("slices", "objects", "surfaces", "annotators", "folds"):
            if not rounded[key]:
                del rounded[key]
        return rounded

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Comparison":
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError: a key is missing or unknown.
        """
        rows = [_row(row) for row in content["leaderboard"]]
        tests = [PairTest(**test) for test in content["tests"]]
        slices = [_slice(one) for one in content.get("slices", [])]
        objects = ObjectsSummary(**content["objects"]) if "objects" in content else None
        surfaces = SurfacesSummary(**content["surfaces"]) if "surfaces" in content else None
        annotators = _annotators(content["annotators"]) if "annotators" in content else None
        parts = {"slices": slices, "objects": objects, "surfaces": surfaces, "annotators": annotators}
        return cls(**{**content, "leaderboard": rows, "tests": tests, **parts})


def _row(content: Mapping[str, Any]) -> LeaderboardRow:
    return LeaderboardRow(**{**content, "scores": _scores(content)})


def _slice(content: Mapping[str, Any]) -> Slice:
    return Slice(**{**content, "scores": _scores(content)})


def _annotators(content: Mapping[str, Any]) -> AnnotatorsSummary:
    return AnnotatorsSummary(
        metric=content["metric"],
        scores={name: _scores(content["scores"], name) for name in content["scores"]},
        mean=_scores(content, "mean"),
        others=_scores(content, "others"),
        agreement=Score(**content["agreement"]),
    )


def _scores(content: Mapping[str, Any], key: str = "scores") -> dict[str, Score]:
    return {name: Score(**score) for name, score in content[key].items()}


def read_comparison(path: Path) -> Comparison:
    """Read comparison.json.

    Raises:
        DataError: the file is missing or not a comparison.
    """
    try:
        return Comparison.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read as a comparison ({error})", "run the step compare again"
        ) from error


def _rounded(value: Any) -> Any:
    """Round to 6 decimals: finer than the statistics, coarse enough to be the same on every machine."""
    if isinstance(value, float):
        # + 0.0 turns -0.0 into 0.0
        return round(value, _DECIMALS) + 0.0
    if isinstance(value, Mapping):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(v) for v in value]
    return value
