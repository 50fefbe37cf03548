"""Surfaces of a comparison: tolerance, conventions, and classes that were missed in whole volumes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segcore.comparison.cluster_sums import ClusterSums
from segcore.comparison.results import Comparison, SurfacesSummary
from segcore.errors import DataError
from segcore.metrics import SURFACE_POLICY, class_metrics


def no_surfaces(metric: str, title: str) -> DataError:
    """The error for a metric of surfaces where an evaluation has none."""
    return DataError(
        f"compare.metric is {metric}, a metric of surfaces, but the evaluation of {title} has no volumes with a "
        "spacing in mm (NIfTI, MetaImage, NRRD or DICOM)",
        f"choose a metric of pixels in params.yaml ({', '.join(class_metrics('counts'))}) and run again; nothing is "
        "trained or evaluated anew",
    )


def summary(
    models: Mapping[str, tuple[Sequence[ClusterSums], Sequence[Mapping[str, Any]]]],
) -> SurfacesSummary | None:
    """Figures of surfaces; None where a model has none.

    Args:
        models: architecture -> runs and summaries, one per seed.
    """
    runs = [run.surfaces for each, _ in models.values() for run in each if run.surfaces is not None]
    if len(runs) < sum(len(each) for each, _ in models.values()):
        return None
    first = next(iter(models.values()))[1][0]
    return SurfacesSummary(
        policy=SURFACE_POLICY,
        tolerance=float(first["surfaces"]["tolerance"]),
        volumes=len(runs[0].volumes),
        missed={name: _missed(each) for name, (each, _) in models.items()},
    )


def empty_policy(comparison: Comparison) -> str:
    """What a class without a pixel scores, in the metrics of surfaces too where there are any."""
    policy = comparison.empty_policy
    return policy if comparison.surfaces is None else f"{policy.rstrip('.')}; 0 mm in distances of surfaces."


def _missed(runs: Sequence[ClusterSums]) -> dict[str, float]:
    """Volumes with a class in only one of truth and prediction, mean of the seeds; only classes with any."""
    numbers = np.mean([run.surfaces.sums["missed"].sum(0) for run in runs if run.surfaces], axis=0)
    return {runs[0].classes[k]: float(numbers[k]) for k in runs[0].foreground if numbers[k]}


def lines(comparison: Comparison) -> list[str]:
    """Tolerance and missed classes, and the policy as the last line; empty without surfaces."""
    found = comparison.surfaces
    if found is None:
        return []
    text = [f"NSD: surfaces within {found.tolerance:g} mm (evaluate.surface_tolerance)."]
    for name, by_class in found.missed.items():
        counted = ", ".join(f"{kind} {number:.4g}" for kind, number in by_class.items())
        if counted:
            start = f"{comparison.titles[name]}: volumes with a class in only one of truth and prediction"
            text.append(f"{start}, of {found.volumes}: {counted}.")
    return [*text, f"Surfaces: {found.policy}"]
