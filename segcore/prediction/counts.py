"""Counts of objects per class, with intervals from the validation split."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segcore.objects.count_interval import count_interval, true_number
from segcore.objects.find import FindSettings
from segcore.params import Predict

# class of rows of all classes together: one that no class can have as its name
ALL = ""
_FEW = "objects are in fewer than two clusters of the validation split, or none was found there"
FIELDS = ("class", "objects", "estimate", "low", "high", "hectares", "per_hectare", "area_px", "area_m2")


@dataclass(frozen=True)
class Validation:
    """True and predicted numbers of objects of each validation cluster.

    Attributes:
        names: of the classes that are counted.
        clusters: (true, predicted) of each cluster, by class; an absent class has no estimate and no interval.
        reason: why there are no clusters; "" if there are.
    """

    names: Sequence[str]
    clusters: Mapping[str, Sequence[Sequence[int]]]
    reason: str = ""

    @classmethod
    def of(cls, description: dict[str, Any], find: FindSettings, settings: Predict) -> "Validation":
        """From model.json.

        Args:
            description: model.json.
            find: how objects are found.
            settings: `min_area` and `flips`.

        Returns:
            Without clusters if the validation counted otherwise: with another score, all sizes, and without flips.
        """
        names = [description["classes"][index] for index in description["foreground"]]
        chosen = description["objects"].get(find.method, {})
        unlike = {
            "predict.score is not the score chosen on the validation split": find.score
            != chosen.get("score"),
            "the validation counted without predict.min_area": settings.min_area > 1,
            "the validation counted without predict.flips": settings.flips,
        }
        reason = next((text for text, holds in unlike.items() if holds), "")
        return cls(names, {} if reason else chosen.get("counts", {}), reason)

    def facts(self, name: str, count: int, hectares: float | None = None) -> dict[str, int | None]:
        """Estimate and interval of the true number where `count` objects of a class, or of all, were found.

        Args:
            name: of the class, or ALL.
            count: number of objects.
            hectares: in which objects were searched; None: unknown.

        Returns:
            `estimate`, `low` and `high`; each None if there is none, or no pixel.
        """
        if hectares == 0:
            return dict.fromkeys(("estimate", "low", "high"))
        clusters = self.clusters.get(name, ()) if name != ALL else self._of_all()
        low, high = count_interval(count, clusters) or (None, None)
        estimate = None if low is None else true_number(count, clusters)
        return {"estimate": estimate, "low": low, "high": high}

    def without(self, reason: str) -> "Validation":
        """The same without estimates and intervals."""
        return replace(self, clusters={}, reason=self.reason or reason)

    def missing(self, rows: Sequence[Mapping[str, Any]]) -> str | None:
        """Sentence on rows of `tallied` without an estimate, with the reason; None if all have one."""
        without = [row["class"] or "all classes" for row in rows if row["estimate"] is None]
        if not without:
            return None
        reason = "no pixel has data" if rows[0]["hectares"] == 0 else self.reason or _FEW
        of = "" if len(without) == len(rows) else f" of {', '.join(without)}"
        return f"counts have no estimate and no interval{of}: {reason}"

    def _of_all(self) -> Sequence[Sequence[int]]:
        each = [self.clusters.get(of) for of in self.names]
        if any(c is None or len(c) != len(each[0] or ()) for c in each):
            return ()
        return [
            [sum(pair[side] for pair in pairs) for side in (0, 1)]
            for pairs in zip(*(c for c in each if c is not None), strict=True)
        ]


def tallied(
    classes: np.ndarray,
    areas: np.ndarray,
    square_metres: np.ndarray | None,
    foreground: Sequence[int],
    validation: Validation,
    hectares: float | None,
) -> list[dict[str, Any]]:
    """One row per class and one for all, with FIELDS; None where something is unknown.

    Args:
        classes: (N,) class index of each object.
        areas: (N,) pixels or voxels.
        square_metres: (N,); None: unknown.
        foreground: indices of the classes that are counted.
        validation: of the model.
        hectares: area in which objects were searched; None: unknown.
    """
    rows = []
    for index, name in [*zip(foreground, validation.names, strict=True), (None, ALL)]:
        chosen = np.ones(len(classes), bool) if index is None else classes == index
        count = int(chosen.sum())
        rows.append(
            {
                "class": name,
                "objects": count,
                **validation.facts(name, count, hectares),
                "hectares": hectares,
                "per_hectare": count / hectares if hectares else None,
                "area_px": int(areas[chosen].sum()),
                "area_m2": None if square_metres is None else float(square_metres[chosen].sum()),
            }
        )
    return rows


def summed(
    scenes: Iterable[tuple[str, Sequence[Mapping[str, str]]]], validation: Validation
) -> list[dict[str, Any]]:
    """Rows of several scenes with a column `scene`, and rows of all scenes together; their `scene` is empty.

    Args:
        scenes: name and rows of each scene, as read from its file.
        validation: of the model.
    """
    rows: list[dict[str, Any]] = [{"scene": name, **row} for name, found in scenes for row in found]
    for name in [*validation.names, ALL]:
        of_class = [row for row in rows if row["class"] == name]
        sums: dict[str, Any] = {}
        for field, kind in (("objects", int), ("hectares", float), ("area_px", int), ("area_m2", float)):
            values = [row[field] for row in of_class]
            # the area is unknown as a whole if that of one scene is
            sums[field] = None if "" in values else sum(map(kind, values))
        facts = validation.facts(name, sums["objects"])
        if any(row["low"] == "" and row["hectares"] != "0" for row in of_class):
            facts = dict.fromkeys(facts)
        density = sums["objects"] / sums["hectares"] if sums["hectares"] else None
        rows.append({"scene": "", "class": name, **sums, **facts, "per_hectare": density})
    return rows


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> None:
    """Write rows as CSV; floating-point numbers get six digits, None is empty.

    Raises:
        OSError: the disk is full or not writable.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(fields)
        writer.writerows([[_shown(row[field]) for field in fields] for row in rows])


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a file from `write_table`.

    Raises:
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
