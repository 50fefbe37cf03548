"""Pictures of one anatomy or scene are not linked for looking alike; copies among them still are."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from segcore.ingest.links.footprints import links
from segcore.ingest.links.near_duplicates import near_duplicates
from segcore.ingest.links.perceptual_hash import signature

ROW, COL = np.mgrid[:192, :192]


def smooth(rng, sigma, amplitude):
    """(192, 192) smooth random field of this standard deviation."""
    field = gaussian_filter(rng.normal(size=ROW.shape), sigma)
    return amplitude * field / field.std()


def grey(values):
    return np.clip(values, 0, 255).astype(np.uint8)[..., None]


def lesions(number):
    """Patients of one anatomy, each with a lesion at another place."""
    rng = np.random.default_rng(0)
    body = 60.0 * (np.hypot(ROW - 96, COL - 96) < 88) + 50 * (np.hypot(ROW - 80, COL - 60) < 28)
    body += 50 * (np.hypot(ROW - 80, COL - 132) < 28)
    places = rng.integers(50, 130, (number, 2))
    return [
        grey(body + rng.normal(0, 4, ROW.shape) + 70 * (np.hypot(ROW - y, COL - x) < 10)) for y, x in places
    ]


def chests(number):
    """X-rays of one anatomy, warped and textured for each patient."""
    rng = np.random.default_rng(1)
    lungs = (np.hypot((COL - 58) / 30, (ROW - 96) / 58) < 1) | (
        np.hypot((COL - 134) / 30, (ROW - 96) / 58) < 1
    )
    ribs = 25 * (np.sin(ROW / 3.2 + np.abs(COL - 96) / 32) > 0.5)
    body = 180 - 70.0 * lungs + ribs - ((COL - 96) / 12) ** 2
    return [
        grey(
            map_coordinates(
                body, [ROW + smooth(rng, 24, 0.7), COL + smooth(rng, 24, 0.7)], order=1, mode="nearest"
            )
            + smooth(rng, 3, 3)
        )
        for _ in range(number)
    ]


def frames(number):
    """Frames of a fixed camera, in which one thing moves."""
    rng = np.random.default_rng(2)
    scene = 100 + smooth(rng, 2, 20) + smooth(rng, 10, 25)
    at = np.linspace(20, 170, number)
    return [
        grey(np.where(np.hypot(ROW - 96, COL - x) < 14, 220, scene) + rng.normal(0, 3, ROW.shape)) for x in at
    ]


def sea(number):
    """Tiles of open water, darker towards the edges of the camera."""
    rng = np.random.default_rng(3)
    shade = 15 * (np.hypot(ROW - 96, COL - 96) / 135) ** 2
    return [
        grey(60 - shade + smooth(rng, 2, 6) + 6 * np.sin(COL / 5 + rng.uniform(0, 6))) for _ in range(number)
    ]


def landscapes(number):
    rng = np.random.default_rng(4)
    return [
        grey(110 + smooth(rng, 1.5, 15) + smooth(rng, 8, 25) + smooth(rng, 30, 25)) for _ in range(number)
    ]


def jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream))[..., None]


def half(pixels):
    return np.asarray(Image.fromarray(pixels[..., 0]).resize((96, 96), Image.Resampling.BICUBIC))[..., None]


def table(pictures, **columns):
    rows = []
    for index, pixels in enumerate(pictures):
        phash, thumb = signature(pixels, np.ones(pixels.shape[:2], bool))
        rows.append(
            {"id": f"i{index:02d}", "sha256": f"{index:064d}", "phash": phash, "thumb": thumb, **columns}
        )
    return pd.DataFrame(rows)


def largest(found, names):
    """Size of the largest set of names that the pairs join."""
    unit = {name: {name} for name in names}
    for a, b in zip(found["a"], found["b"], strict=True):
        both = unit[a] | unit[b]
        unit |= dict.fromkeys(both, both)
    return max(map(len, unit.values()))


@pytest.mark.parametrize("pictures", [lesions, chests, sea, landscapes])
@pytest.mark.parametrize("number", [16, 40])
def test_different_patients_and_places_are_not_joined_and_copies_are_found(pictures, number):
    originals = pictures(number)
    rows = table([*originals, jpeg(originals[3])])
    found = near_duplicates(rows)
    assert ("i03", f"i{number:02d}") in set(zip(found["a"], found["b"], strict=True))
    assert largest(found, rows["id"]) <= max(3, number // 8)


@pytest.mark.parametrize("copy", [jpeg, half])
def test_copies_are_linked_where_pictures_differ(copy):
    originals = landscapes(12)
    found = near_duplicates(table([*originals, copy(originals[5])]))
    assert found[["a", "b"]].to_numpy().tolist() == [["i05", "i12"]] and not found.attrs


def test_bursts_of_several_scenes_are_linked_within_their_scene():
    rng = np.random.default_rng(5)
    shots = [grey(scene[..., 0] + rng.normal(0, 2, ROW.shape)) for scene in landscapes(3) for _ in range(6)]
    rows = table(shots)
    found = near_duplicates(rows)
    assert len(found) == 3 * 15 and largest(found, rows["id"]) == 6


def test_the_share_of_pairs_that_look_alike_is_given():
    found = links(table(lesions(16), crs=None, transform=None, height=192, width=192))
    assert 0.1 < found.attrs["alike_share"] < 1
    assert "alike_share" in near_duplicates(table(frames(30))).attrs


def test_volumes_are_compared_by_content_alone():
    pictures = landscapes(3)
    rows = table([*pictures, jpeg(pictures[0])], depth=20)
    rows.loc[1, "sha256"] = rows.loc[2, "sha256"]
    assert near_duplicates(rows)[["a", "b", "kind"]].to_numpy().tolist() == [["i01", "i02", "duplicate"]]
    assert near_duplicates(rows.assign(depth=1))["kind"].tolist() == ["near-duplicate", "duplicate"]


def test_later_batches_do_not_change_what_is_linked_in_the_first():
    first = table(lesions(16)).assign(batch="first")
    later = table(landscapes(30)).assign(batch="later")
    later["id"] = "later-" + later["id"]
    later["sha256"] = "a" + later["sha256"].str[1:]
    before = near_duplicates(first)
    after = near_duplicates(pd.concat([first, later], ignore_index=True))
    assert after[after["b"].str.startswith("i")].to_numpy().tolist() == before.to_numpy().tolist()
