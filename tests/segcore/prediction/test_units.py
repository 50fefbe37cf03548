"""Scenes in other units than the training images are recognised, and ordinary scenes of other content are not."""

from collections.abc import Callable

import numpy as np
import pytest

from segcore.data.value_facts import value_facts, value_ranges
from segcore.prediction.units import has_other_units

Make = Callable[[np.random.Generator], np.ndarray]


def reflectance(rng: np.random.Generator) -> np.ndarray:
    """Four bands of land in numbers of 0 to 10,000, as satellites deliver them."""
    base = rng.gamma(4, 1, (4096, 4)) * np.array([180, 220, 260, 700]) * rng.uniform(0.7, 1.3)
    return np.clip(np.round(base), 1, 10000)


def backscatter(rng: np.random.Generator) -> np.ndarray:
    """Two bands of linear radar backscatter."""
    return rng.gamma(4, 0.25, (4096, 2)) * np.array([0.12, 0.03]) * rng.uniform(0.5, 2)


def hounsfield(rng: np.random.Generator) -> np.ndarray:
    """Computed tomography in Hounsfield units: air, fat, soft tissue, bone."""
    parts = rng.multinomial(4096, [0.35, 0.15, 0.45, 0.05])
    means = np.repeat([-1000, -100, 40, 500], parts)
    return np.round(means + rng.normal(0, 20, 4096))[:, None]


def wide_hounsfield(rng: np.random.Generator) -> np.ndarray:
    """The same with dense bone: a shift by 1024 is less than half of the range."""
    parts = rng.multinomial(4096, [rng.uniform(0.3, 0.6), 0.1, 0.2, 0.1])
    means = np.repeat([-1000, -100, 40, 900], parts)
    return np.round(means + rng.normal(0, 1, len(means)) * np.repeat([10, 30, 40, 300], parts))[:, None]


def stored(values: np.ndarray) -> np.ndarray:
    """Hounsfield units as scanners store them, without negative numbers."""
    return np.maximum(values + 1024, 0)


def twelve_bits(rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.round(rng.gamma(3, 300, (4096, 1))), 0, 4095)


def photo(rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.round(rng.normal(120, 45, (4096, 3)) * rng.uniform(0.8, 1.2)), 0, 255)


def varied_bits(rng: np.random.Generator) -> np.ndarray:
    """Three bands of 12 bits whose brightness varies by a factor of 2.5."""
    values = 100 + 3900 * np.clip(rng.beta(2, 5, (4096, 3)) * rng.uniform(0.6, 1.5), 0, 1)
    return np.round(values)


def to_db(values: np.ndarray) -> np.ndarray:
    return 10 * np.log10(values)


OTHER_UNITS: list[tuple[Make, Callable[[np.ndarray], np.ndarray]]] = [
    (reflectance, lambda v: v / 10_000),
    (lambda rng: reflectance(rng) / 10_000, lambda v: v * 10_000),
    (lambda rng: reflectance(rng) / 10_000, lambda v: v * 100),
    (reflectance, lambda v: v / 100),
    (backscatter, to_db),
    (lambda rng: to_db(backscatter(rng)), lambda v: 10 ** (v / 10)),
    (hounsfield, stored),
    (hounsfield, lambda v: v + 1024),
    (lambda rng: hounsfield(rng) + 1024, lambda v: v - 1024),
    (lambda rng: stored(hounsfield(rng)), lambda v: v - 1024),
    (wide_hounsfield, stored),
    (wide_hounsfield, lambda v: v + 1024),
    (wide_hounsfield, lambda v: v + 1000),
    (hounsfield, lambda v: v + 32768),
    (reflectance, lambda v: v + 32768),
    (lambda rng: reflectance(rng) + 32768, lambda v: v - 32768),
    (twelve_bits, lambda v: v * 16),
    (lambda rng: twelve_bits(rng) * 16, lambda v: v / 16),
    (varied_bits, lambda v: v * 16),
    (lambda rng: varied_bits(rng) * 16, lambda v: v / 16),
    (photo, lambda v: v / 255),
    (photo, lambda v: v * 257),
    (lambda rng: photo(rng) * 257, lambda v: v / 257),
    (lambda rng: photo(rng) / 255, lambda v: v * 255),
]


def trained(make: Make, count: int = 6) -> dict:
    return value_ranges([value_facts(make(np.random.default_rng(seed))) for seed in range(count)])


@pytest.mark.parametrize(("make", "change"), OTHER_UNITS, ids=range(len(OTHER_UNITS)))
def test_a_scene_in_other_units_is_recognised_and_one_in_the_same_units_is_not(make, change) -> None:
    limits = trained(make)
    for seed in range(100, 110):
        scene = make(np.random.default_rng(seed))
        assert not has_other_units(scene, limits, is_byte=False)
        assert has_other_units(change(scene), limits, is_byte=False)


@pytest.mark.parametrize(
    ("make", "change"), [(reflectance, lambda v: v / 10_000 * 255), (varied_bits, lambda v: v / 16)]
)
def test_bytes_are_other_units_than_more_bits_if_the_file_has_bytes_and_may_be_night_otherwise(
    make, change
) -> None:
    limits = trained(make)
    for seed in range(100, 120):
        values = np.round(change(make(np.random.default_rng(seed))))
        assert has_other_units(values, limits, is_byte=False, is_reduced=True)
    # ten bits are four times eight, but a training range below 510 may be that of bytes
    low = trained(lambda rng: photo(rng) * 1.5)
    assert not has_other_units(photo(np.random.default_rng(9)), low, is_byte=False, is_reduced=True)


def test_models_of_older_versions_without_medians_are_compared_with_extremes() -> None:
    for make, change in OTHER_UNITS[:10]:
        limits = {n: v for n, v in trained(make).items() if n not in ("medians", "step")}
        for seed in range(100, 110):
            scene = make(np.random.default_rng(seed))
            assert not has_other_units(scene, limits, is_byte=False)
            assert has_other_units(change(scene), limits, is_byte=False)


def sea(rng: np.random.Generator) -> np.ndarray:
    """Water in numbers of 0 to 10,000: dark, and nearly black in the infrared."""
    return np.round(np.array([450, 350, 180, 40]) + rng.normal(0, 1, (4096, 4)) * np.array([20, 15, 12, 12]))


def corrected_sea(rng: np.random.Generator) -> np.ndarray:
    """Open water after the correction of the atmosphere: hardly any infrared."""
    means, deviations = np.array([350, 40, 25, 18]), np.array([30, 12, 9, 7])
    return np.clip(np.round(means + rng.normal(0, 1, (4096, 4)) * deviations), 1, None)


def land(rng: np.random.Generator) -> np.ndarray:
    """The same bands over land: green, near and two shortwave infrared."""
    means, deviations = np.array([800, 2800, 2300, 1400]), np.array([250, 700, 600, 500])
    return np.clip(np.round(means + rng.normal(0, 1, (4096, 4)) * deviations), 1, None)


ORDINARY: list[tuple[str, Make, Make]] = [
    ("sea", reflectance, sea),
    ("snow", reflectance, lambda rng: 2.5 * reflectance(rng) + 1000),
    ("shade", reflectance, lambda rng: np.round(reflectance(rng) / 5)),
    ("one value", reflectance, lambda rng: np.full((4096, 4), 600.0)),
    ("calm sea by radar", backscatter, lambda rng: backscatter(rng) * 0.08),
    ("calm sea in dB", lambda rng: to_db(backscatter(rng)), lambda rng: to_db(backscatter(rng) * 0.08)),
    ("city in dB", lambda rng: to_db(backscatter(rng)), lambda rng: to_db(backscatter(rng) * 8)),
    ("real numbers of the same range", reflectance, lambda rng: reflectance(rng) + rng.random((4096, 4))),
    (
        "reflectance with noise below 0",
        lambda rng: reflectance(rng) / 10_000,
        lambda rng: sea(rng) / 10_000 - 0.006,
    ),
    ("corrected sea", land, corrected_sea),
    (
        "corrected sea as real numbers",
        lambda rng: land(rng) / 10_000,
        lambda rng: corrected_sea(rng) / 10_000,
    ),
    ("infrared of a corrected sea", lambda rng: land(rng)[:, 1:], lambda rng: corrected_sea(rng)[:, 1:]),
    ("one infrared band of a corrected sea", lambda rng: land(rng)[:, 1:2], lambda rng: sea(rng)[:, 3:]),
    ("night", reflectance, lambda rng: np.round(reflectance(rng) * 0.04)),
    ("night of one band", twelve_bits, lambda rng: np.round(twelve_bits(rng) * 0.04)),
    ("night as real numbers", photo, lambda rng: photo(rng) * 0.05),
    ("whole numbers around 0", land, lambda rng: np.round(rng.normal(-20, 30, (4096, 4)))),
    (
        "real numbers around 0",
        lambda rng: land(rng) / 10_000,
        lambda rng: rng.normal(0, 0.002, (4096, 4)),
    ),
    (
        "night among training images of the day",
        lambda rng: reflectance(rng) * rng.choice([1, 0.02]),
        lambda rng: reflectance(rng) * 0.01,
    ),
    ("a crop of tissue of 0 to 100", wide_hounsfield, lambda rng: rng.uniform(0, 100, (4096, 1)).round()),
    ("contrast of vessels", wide_hounsfield, lambda rng: np.abs(rng.normal(150, 120, (4096, 1))).round()),
    (
        "a contrast scan of the body",
        wide_hounsfield,
        lambda rng: np.concatenate([rng.normal(-90, 20, 1000), rng.normal(120, 90, 3096)])[:, None].round(),
    ),
    ("a crop of bone", wide_hounsfield, lambda rng: rng.normal(700, 200, (4096, 1)).round()),
    ("a crop of soft tissue", hounsfield, lambda rng: rng.normal(40, 30, (4096, 1))),
    ("a crop of liver", hounsfield, lambda rng: rng.normal(110, 15, (4096, 1))),
    ("a crop of lung", hounsfield, lambda rng: rng.normal(-850, 60, (4096, 1))),
]


@pytest.mark.parametrize(("name", "make", "scene"), ORDINARY, ids=[name for name, _, _ in ORDINARY])
def test_darker_brighter_and_plain_scenes_in_the_same_units_are_not_refused(name, make, scene) -> None:
    limits = trained(make)
    for seed in range(100, 110):
        assert not has_other_units(scene(np.random.default_rng(seed)), limits, is_byte=False), name


@pytest.mark.parametrize("brightness", [0.0, 0.02, 0.1, 0.5, 1.5])
def test_photos_at_night_and_overexposed_photos_are_not_refused(brightness) -> None:
    rng = np.random.default_rng(100)
    scene = np.clip(np.round(photo(rng) * brightness), 0, 255)
    assert not has_other_units(scene, trained(photo), is_byte=True)


def test_other_units_in_few_bands_do_not_count_and_few_pixels_are_not_judged() -> None:
    scene = reflectance(np.random.default_rng(100))
    scene[:, 3] /= 10_000
    assert not has_other_units(scene, trained(reflectance), is_byte=False)
    assert not has_other_units(scene[:20] / 10_000, trained(reflectance), is_byte=False)
    assert has_other_units(scene[:100] / 10_000, trained(reflectance), is_byte=False)
