"""nnU-Net's folders give items with their channels, and labels that differ from params.yaml are refused."""

import json
from pathlib import Path

import pytest
from PIL import Image

from segcore.io.layouts._scenes import scenes_of
from tests.support.layouts import by_name, fails, find, touch
from tests.support.tiny import params_for

DATA = {"layout": "nnunet", "classes": ["background", "PZ", "TZ"], "colors": [[0, 0, 0]] * 3}
LABELS = {"background": 0, "PZ": 1, "TZ": 2}
VALUES = {0: "background", 1: "PZ", 2: "TZ"}


def make(folder, cases=("c1", "c2"), channels=2, **description):
    touch(folder, *(f"imagesTr/{c}_{i:04d}.nii.gz" for c in cases for i in range(channels)))
    touch(folder, *(f"labelsTr/{c}.nii.gz" for c in cases), "imagesTs/t1_0000.nii.gz")
    content = {
        "channel_names": {str(i): f"T{i}" for i in range(channels)},
        "labels": LABELS,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps({**content, **description}))
    return folder


def items_of(folder, **over):
    return find(folder, **{**DATA, "label_values": VALUES, **over})


@pytest.mark.parametrize("place", [".", "Dataset005_Prostate"])
@pytest.mark.parametrize("described", [True, False])
def test_cases_are_items_with_their_channels(tmp_path, place, described):
    make(tmp_path / place)
    if not described:
        (tmp_path / place / "dataset.json").unlink()
    items = items_of(tmp_path)
    assert [(i.id, i.group, i.problem, i.notes) for i in items] == [
        ("c1", "c1", None, ()),
        ("c2", "c2", None, ()),
    ]
    assert [p.as_posix() for p in items[0].images] == [
        (Path(place) / f"imagesTr/c1_000{i}.nii.gz").as_posix() for i in range(2)
    ]
    assert items[1].mask == Path(place) / "labelsTr/c2.nii.gz" and items[0].words == {}


def test_the_group_may_be_of_the_case(tmp_path):
    make(tmp_path)
    assert {item.group for item in items_of(tmp_path, group="all-{case}")} == {"all-c1", "all-c2"}


def test_channels_that_are_missing_or_too_many_are_named(tmp_path):
    make(tmp_path)
    (tmp_path / "imagesTr/c1_0001.nii.gz").unlink()
    (tmp_path / "imagesTr/c2_0000.nii.gz").unlink()
    found = by_name(tmp_path, **DATA, label_values=VALUES)
    first, second = found["c1_0000.nii.gz"].problem, found["c2_0000.nii.gz"].problem
    assert (first.kind, second.kind) == ("missing-channel", "missing-channel")
    assert "has no channel 0001, imagesTr/c1_0001.nii.gz is missing" in first.what
    assert "has no channel 0000, imagesTr/c2_0000.nii.gz is missing" in second.what
    make(tmp_path / "more", channels=3, channel_names={"0": "T2"})
    assert "has a channel 0002, but dataset.json declares 1" in items_of(tmp_path / "more")[0].problem.what


def test_a_missing_label_is_a_missing_mask_and_missing_cases_are_noted(tmp_path):
    make(tmp_path, numTraining=5)
    (tmp_path / "labelsTr/c2.nii.gz").unlink()
    first, second = items_of(tmp_path)
    assert first.notes == (("missing-cases", "dataset.json declares 5 training cases, imagesTr has 2"),)
    assert second.problem.kind == "missing-mask"


def test_older_files_and_images_that_hold_all_channels_are_read(tmp_path):
    touch(tmp_path, "imagesTr/prostate_0001.nii.gz", "labelsTr/prostate_0001.nii.gz")
    content = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "PZ", "2": "TZ"}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (item,) = items_of(tmp_path)
    assert (item.id, item.channels, item.problem) == ("prostate_0001", (), None)


@pytest.mark.parametrize(
    ("labels", "values", "text"),
    [
        ({**LABELS, "AFS": 3}, VALUES, "3 (AFS) is not in data.label_values"),
        (LABELS, {0: "background", 1: "TZ", 2: "PZ"}, "1 is PZ, in data.label_values TZ"),
        ({"0": "background", "1": "TZ", "2": "PZ"}, VALUES, "1 is TZ, in data.label_values PZ"),
    ],
)
def test_other_labels_are_refused_with_the_lines_to_use(tmp_path, labels, values, text):
    make(tmp_path, labels=labels)
    kind, message = fails(tmp_path, **{**DATA, "label_values": values})
    assert kind == "other-labels" and text in message
    numbers = labels if "PZ" in labels else {name: int(number) for number, name in labels.items()}
    names = sorted(numbers, key=numbers.get)
    assert f"classes: [{', '.join(names)}]" in message
    assert f"label_values: {{{', '.join(f'{numbers[n]}: {n}' for n in names)}}}" in message


@pytest.mark.parametrize(
    ("labels", "data"),
    [
        ({**LABELS, "ignore": 3}, {"label_values": {**VALUES, 3: "ignore"}}),
        (
            LABELS,
            {
                "label_values": {0: 0, "1-2": 1},
                "classes": ["background", "prostate"],
                "colors": [[0, 0, 0]] * 2,
            },
        ),
        (LABELS, {"label_values": {"0": "background", "1": "PZ", "others": "ignore"}}),
        ({"background": 0, "pz": 1, "tz": 2}, {"label_values": VALUES}),
    ],
)
def test_labels_may_be_joined_renamed_or_ignored(tmp_path, labels, data):
    make(tmp_path, labels=labels)
    values = {**params_for(".").data.model_dump(), **DATA, **data}
    from segcore.io import layouts
    from segcore.params import Data

    assert len(layouts.find(Data.model_validate(values), tmp_path)) == 2


def test_regions_are_refused_with_the_reason(tmp_path):
    make(tmp_path, labels={"background": 0, "whole": [1, 2], "core": 2})
    kind, message = fails(tmp_path, **{**DATA, "label_values": VALUES})
    assert kind == "other-labels" and "'whole' is a region of the values [1, 2]" in message


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"labels": 3}', '{"labels": {"a": 1}, "numTraining": "x"}']
)
def test_a_damaged_description_is_refused(tmp_path, text):
    make(tmp_path)
    (tmp_path / "dataset.json").write_text(text)
    assert fails(tmp_path, **{**DATA, "label_values": VALUES})[0] == "no-list"


def pictures(folder, bands, cases=("img-0", "img-1")):
    make(folder, cases, channels=0, channel_names={"0": "R", "1": "G", "2": "B"}, file_ending=".png")
    (folder / "imagesTr").mkdir()
    for case in cases:
        touch(folder, f"labelsTr/{case}.png")
        Image.new({1: "L", 3: "RGB"}[bands], (5, 4)).save(folder / f"imagesTr/{case}_0000.png")
    return folder


def test_a_picture_with_all_channels_is_one_item(tmp_path):
    found = items_of(pictures(tmp_path, bands=3))
    assert [(i.id, i.problem, [p.name for p in i.images], i.mask.name) for i in found] == [
        (case, None, [f"{case}_0000.png"], f"{case}.png") for case in ("img-0", "img-1")
    ]
    scene = tmp_path / "imagesTr/img-0_0000.png"
    assert scenes_of([scene], params_for(tmp_path, data={**DATA, "label_values": VALUES}).data) == {scene: ()}


def test_a_picture_without_all_channels_lacks_files(tmp_path):
    found = items_of(pictures(tmp_path / "grey", bands=1))
    assert {i.problem.kind for i in found} == {"missing-channel"}
    # A further file of one case shows that each channel is a file.
    folder = pictures(tmp_path / "mixed", bands=3)
    touch(folder, "imagesTr/img-0_0001.png")
    assert items_of(folder)[1].problem.kind == "missing-channel"
