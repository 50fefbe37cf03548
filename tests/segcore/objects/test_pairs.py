import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from segcore.objects import pairs as module
from segcore.objects.pairs import Pairs, pairs
from segcore.tables.objects import objects_table
from tests.support.object_tables import Mask, as_objects, image, label_of, masks


def index_of(numbers: np.ndarray, classes: dict[int, int], full: dict[int, int]) -> pd.DataFrame:
    ids = [int(i) for i in np.unique(numbers) if i]
    rows = [(i, classes.get(i, 1), full.get(i, int((numbers == i).sum()))) for i in ids]
    return pd.DataFrame(rows, columns=["id", "class_index", "area"])


def as_table(result: Pairs) -> pd.DataFrame:
    kinds = {"truth": result.truths, "prediction": result.predictions, "pair": result.pairs}
    rows = [frame.assign(kind=kind) for kind, frame in kinds.items()]
    return objects_table([frame.assign(item="a", cluster="a") for frame in rows])


def assert_same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    by = ["kind", "truth", "prediction"]
    pd.testing.assert_frame_equal(
        left.sort_values(by, ignore_index=True), right.sort_values(by, ignore_index=True)
    )


@st.composite
def regions(draw: st.DrawFn) -> dict[str, object]:
    """Random small regions: true number map with gaps, overlapping predictions, ignored pixels, full areas."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def rectangle() -> tuple[slice, slice]:
        r, c = rng.integers(0, height), rng.integers(0, width)
        return slice(r, r + rng.integers(1, 6)), slice(c, c + rng.integers(1, 6))

    numbers = np.zeros((height, width), np.uint32)
    for _ in range(draw(st.integers(0, 6))):
        numbers[rectangle()] = rng.choice([1, 2, 3, 70_000, 2**32 - 1])
    predicted = []
    for _ in range(draw(st.integers(0, 6))):
        pixels = np.zeros((height, width), bool)
        pixels[rectangle()] = True
        pixels[rectangle()] ^= rng.random() < 0.3
        predicted.append(Mask(pixels, int(rng.integers(1, 3)), float(rng.choice([0.25, 0.5, 0.75]))))
    ids = [int(i) for i in np.unique(numbers) if i]
    return {
        "numbers": numbers,
        "predicted": [m for m in predicted if m.pixels.any()],
        "scored": rng.random((height, width)) >= draw(st.sampled_from([0, 0.1, 0.6, 1])),
        "classes": {i: int(rng.integers(1, 3)) for i in ids},
        "full": {i: int((numbers == i).sum()) * int(rng.integers(1, 5)) for i in ids},
        "tolerance": draw(st.integers(0, 3)),
        "at_once": draw(st.sampled_from([1, 20, 2**19])),
    }


@settings(deadline=None, max_examples=300)
@given(regions())
def test_the_rows_equal_those_of_a_literal_loop_over_masks(region):
    numbers, scored, shape = region["numbers"], region["scored"], region["numbers"].shape
    true = [
        Mask(m.pixels, m.class_index, area_full=region["full"][int(numbers[m.pixels][0])])
        for m in masks(numbers, region["classes"])
    ]
    expected = image(true, region["predicted"], shape, scored=scored, tolerance=region["tolerance"])
    expected = expected[expected["kind"] != "image"]
    at_once, module._AT_ONCE = module._AT_ONCE, region["at_once"]
    try:
        result = pairs(
            numbers,
            label_of(scored),
            index_of(numbers, region["classes"], region["full"]),
            as_objects(region["predicted"], shape),
            region["tolerance"],
        )
    finally:
        module._AT_ONCE = at_once
    assert_same(as_table(result), expected)
