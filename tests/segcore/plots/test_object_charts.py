"""Charts of objects: what they draw, and that they draw extreme inputs."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from segcore.comparison.results import Score
from segcore.plots import object_charts
from segcore.plots.object_charts import THRESHOLDS, f1_key
from segcore.plots.object_status import EvaluatedObjects
from segcore.plots.style import svg
from tests.support.object_tables import image, masks, table


def _scores(start: float, low: float | None = None, high: float | None = None) -> dict[str, Score]:
    return {f1_key(t): Score(start - (t - 50) / 200, low, high, None) for t in THRESHOLDS}


def _labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_f1_is_drawn_for_every_threshold_with_the_limit_where_it_binds() -> None:
    limit, loose = (
        ("Perfect mask", _scores(0.9)),
        ("Perfect mask", {f1_key(t): Score(1, 1, 1, None) for t in THRESHOLDS}),
    )
    figure = object_charts.f1_by_threshold({"unet": _scores(0.7, 0.2, 0.8)}, {"unet": "U-Net"}, limit)
    assert _labels(figure) == ["U-Net", "Perfect mask"]
    assert list(figure.axes[0].lines[0].get_xdata()) == pytest.approx(np.arange(0.5, 0.96, 0.05))
    assert len(figure.axes[0].collections) == 1, "a band"
    assert _labels(object_charts.f1_by_threshold({"unet": _scores(0.7)}, {"unet": "U-Net"}, loose)) == [
        "U-Net"
    ]


def test_intervals_of_one_cluster_have_no_band() -> None:
    figure = object_charts.f1_by_threshold({"unet": _scores(0.7, 0.0, 1.0)}, {})
    assert not figure.axes[0].collections


def _run(true: int, predicted: int, clusters: int = 2) -> EvaluatedObjects:
    """Images of separate objects in a row, of which the first ones are predicted."""
    numbers = np.zeros((4, 4 * max(true, predicted, 1)), int)
    for n in range(max(true, predicted)):
        numbers[:3, 4 * n : 4 * n + 3] = n + 1
    given, found = np.where(numbers <= true, numbers, 0), np.where(numbers <= predicted, numbers, 0)
    images = [image(masks(given), masks(found), numbers.shape, f"i{k}", f"c{k}") for k in range(clusters)]
    return EvaluatedObjects(table(*images), 0.5, [Path()])


@pytest.mark.parametrize("architectures", [1, 3, 8])
@pytest.mark.parametrize(("true", "predicted", "clusters"), [(5, 4, 3), (0, 0, 1), (0, 3, 1), (2, 0, 1)])
def test_counts_have_one_dot_per_cluster_and_a_panel_per_architecture(
    architectures: int, true: int, predicted: int, clusters: int
) -> None:
    runs = {f"net{k}": _run(true, predicted, clusters) for k in range(architectures)}
    figure = object_charts.counts_by_cluster(runs, {})
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == architectures
    for axes in panels:
        dots = axes.collections[0].get_offsets()
        assert np.asarray(dots).tolist() == [[true, predicted]] * clusters
        assert axes.get_xlim() == axes.get_ylim() and axes.get_xlim()[1] >= max(true, predicted)
    assert "<svg" in svg(figure, "counts")


def test_recall_by_size_names_sizes_and_numbers_of_objects() -> None:
    figure = object_charts.recall_by_size({"unet": _run(20, 5)}, {"unet": "U-Net"})
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["9\n40"]
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.25]
    assert object_charts.recall_by_size({"unet": _run(0, 3)}, {}) is None


def test_equal_recalls_of_one_bin_are_side_by_side() -> None:
    figure = object_charts.recall_by_size({name: _run(5, 5) for name in ("fcn", "unet", "deeplab")}, {})
    assert figure is not None
    places = [float(line.get_xdata()[0]) for line in figure.axes[0].lines]
    assert min(np.diff(places)) > 0.05 and places[1] == 0
