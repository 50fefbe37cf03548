"""Counts of objects per class, with intervals from the validation split."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segcore.objects.count_interval import count_interval
from segcore.objects.find import FindSettings

# line of all classes together
ALL = "all"
FIELDS = ("class", "objects", "low", "high", "hectares", "per_hectare", "area_px", "area_m2")


@dataclass(frozen=True)
class Validation:
    """True and predicted numbers of objects of each validation cluster.

    Attributes:
        names: of the classes that are counted.
        clusters: (true, predicted) of each cluster, by class; an absent class has no interval.
    """

    names: Sequence[str]
    clusters: Mapping[str, Sequence[Sequence[int]]]

    @classmethod
    def of(cls, description: dict[str, Any], find: FindSettings, min_area: int) -> "Validation":
        """From model.json.

        Args:
            description: model.json.
            find: how objects are found.
            min_area: objects of fewer pixels are left out.

        Returns:
            Without clusters if other objects are left out than on the validation split.
        """
        names = [description["classes"][index] for index in description["foreground"]]
        chosen = description["objects"].get(find.method, {})
        is_alike = min_area <= 1 and find.score == chosen.get("score")
        return cls(names, chosen.get("counts", {}) if is_alike else {})

    def interval(self, name: str, count: int) -> tuple[int | None, int | None]:
        """Interval of the count of a class, or of all; (None, None) if there is none."""
        if name != ALL:
            found = count_interval(count, self.clusters.get(name, ()))
        else:
            each = [self.clusters.get(of) for of in self.names]
            if any(c is None or len(c) != len(each[0] or ()) for c in each):
                return None, None
            together = [
                [sum(pair[side] for pair in pairs) for side in (0, 1)]
                for pairs in zip(*(c for c in each if c is not None), strict=True)
            ]
            found = count_interval(count, together)
        return (None, None) if found is None else found


def tallied(
    classes: np.ndarray,
    areas: np.ndarray,
    square_metres: np.ndarray | None,
    foreground: Sequence[int],
    validation: Validation,
    hectares: float | None,
    has_intervals: bool = True,
) -> list[dict[str, Any]]:
    """One row per class and one for all, with FIELDS; None where something is unknown.

    Args:
        classes: (N,) class index of each object.
        areas: (N,) pixels or voxels.
        square_metres: (N,); None: unknown.
        foreground: indices of the classes that are counted.
        validation: of the model.
        hectares: area in which objects were searched; None: unknown.
        has_intervals: False where counts are not of what the validation counted.
    """
    rows = []
    for index, name in [*zip(foreground, validation.names, strict=True), (None, ALL)]:
        chosen = np.ones(len(classes), bool) if index is None else classes == index
        count = int(chosen.sum())
        low, high = validation.interval(name, count) if has_intervals else (None, None)
        rows.append(
            {
                "class": name,
                "objects": count,
                "low": low,
                "high": high,
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
        low, high = validation.interval(name, sums["objects"])
        if any(row["low"] == "" and int(row["objects"]) for row in of_class):
            low, high = None, None
        density = sums["objects"] / sums["hectares"] if sums["hectares"] else None
        rows.append({"scene": "", "class": name, **sums, "low": low, "high": high, "per_hectare": density})
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
