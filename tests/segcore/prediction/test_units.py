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


def stored(values: np.ndarray) -> np.ndarray:
    """Hounsfield units as scanners store them, without negative numbers."""
    return np.maximum(values + 1024, 0)


def twelve_bits(rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.round(rng.gamma(3, 300, (4096, 1))), 0, 4095)


def photo(rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.round(rng.normal(120, 45, (4096, 3)) * rng.uniform(0.8, 1.2)), 0, 255)


def to_db(values: np.ndarray) -> np.ndarray:
    return 10 * np.log10(values)


OTHER_UNITS: list[tuple[Make, Callable[[np.ndarray], np.ndarray]]] = [
    (reflectance, lambda v: v / 10_000),
    (lambda rng: reflectance(rng) / 10_000, lambda v: v * 10_000),
    (lambda rng: reflectance(rng) / 10_000, lambda v: v * 100),
    (reflectance, lambda v: v / 100),
    (reflectance, lambda v: np.round(v / 10_000 * 255)),
    (backscatter, to_db),
    (lambda rng: to_db(backscatter(rng)), lambda v: 10 ** (v / 10)),
    (hounsfield, stored),
    (hounsfield, lambda v: v + 1024),
    (lambda rng: hounsfield(rng) + 1024, lambda v: v - 1024),
    (lambda rng: stored(hounsfield(rng)), lambda v: v - 1024),
    (hounsfield, lambda v: v + 32768),
    (reflectance, lambda v: v + 32768),
    (lambda rng: reflectance(rng) + 32768, lambda v: v - 32768),
    (twelve_bits, lambda v: v * 16),
    (lambda rng: twelve_bits(rng) * 16, lambda v: v / 16),
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


def sea(rng: np.random.Generator) -> np.ndarray:
    """Water in numbers of 0 to 10,000: dark, and nearly black in the infrared."""
    return np.round(np.array([450, 350, 180, 40]) + rng.normal(0, 1, (4096, 4)) * np.array([20, 15, 12, 12]))


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
