"""Entries of annotation files that belong to no image are noted."""

from pathlib import Path

import pandas as pd
import pytest

from segcore.ingest.companions import entries_without_image
from tests.support.coco import save
from tests.support.drawn import cvat, labelme


def found(folder, label, *images):
    table = pd.DataFrame([{"batch": "first", "label": label, "image": image} for image in images])
    return entries_without_image(table, {"first": folder})


def coco_of(path, *names):
    return save(path, [], [{"id": i, "file_name": name} for i, name in enumerate(names)])


@pytest.mark.parametrize("name", ["inst.json", "job.xml"])
def test_entries_that_no_image_has_are_counted_and_named(tmp_path, name):
    names = ("a0.jpg", "a1.jpeg", "x/a2.JPG", "y/a2.JPG")
    if name.endswith("xml"):
        cvat(tmp_path / name, *((one, []) for one in names))
    else:
        coco_of(tmp_path / name, *names)
    text = "3 of its 4 entries belong to no image of the data set: a1.jpeg, x/a2.JPG, y/a2.JPG"
    assert found(tmp_path, name, "images/a0.jpg") == [("entry-without-image", Path(name), text)]
    every = ("images/a0.jpg", "images/a1.png", "images/x/a2.JPG", "images/y/a2.JPG")
    assert found(tmp_path, name, *every) == []
    assert found(tmp_path, name, *every[:3])[0][2].endswith("image of the data set: y/a2.JPG")


def test_files_of_one_image_and_damaged_files_have_no_such_note(tmp_path):
    labelme(tmp_path / "a.json", [])
    (tmp_path / "b.json").write_text("{")
    assert found(tmp_path, "a.json", "images/a.png") == found(tmp_path, "b.json", "images/b.png") == []
