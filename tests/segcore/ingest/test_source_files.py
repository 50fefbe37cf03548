"""Files that belong to an image: beside a picture, and the data of volumes in two files."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from segcore.errors import DataError
from segcore.ingest.companions import without_image
from segcore.ingest.source_files import content_hash, files_of, files_of_item, stamp
from segcore.io import layouts
from segcore.io.images import open_source
from segcore.io.layouts._item import Item
from tests.support.tiny import make_pairs, params_for

PLACE = "0.5\n0\n0\n-0.5\n400000.25\n4999999.75\n"


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("a.png", "a.pgw"),
        ("a.png", "a.pngw"),
        ("a.png", "a.wld"),
        ("a.jpg", "a.jgw"),
        ("a.jpeg", "a.jgw"),
        ("a.bmp", "a.bpw"),
        ("a.webp", "a.wpw"),
        ("a.gif", "a.gfw"),
        ("a.ppm", "a.pmw"),
        ("a.JPG", "a.JGW"),
    ],
)
def test_a_world_file_of_a_picture_gives_its_transform_and_is_part_of_its_stamp(tmp_path, name, beside):
    Image.new("L", (6, 5)).save(tmp_path / name)
    item = Item("a", "a", Path(name))
    before = stamp(item, tmp_path)
    (tmp_path / beside).write_text(PLACE)
    assert stamp(item, tmp_path) != before
    assert [path.name for path in files_of_item(item, tmp_path)] == [name, beside]
    with open_source(tmp_path / name) as source:
        assert source.info.transform == (0.5, 0, 400_000, 0, -0.5, 5_000_000)
        assert source.info.notes == (("sidecar", f"its georeference is read from {beside}"),)


def test_a_tagged_picture_with_a_georeference_keeps_its_stored_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6, 5)).save(tmp_path / "a.png", exif=exif)
    (tmp_path / "a.pgw").write_text(PLACE)
    with open_source(tmp_path / "a.png") as source:
        assert (source.info.height, source.info.width) == (5, 6)
        assert [kind for kind, _ in source.info.notes] == ["sidecar", "orientation-tag"]
        assert "is not applied" in source.info.notes[1][1]


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_data_file_of_a_volume_is_part_of_its_stamp_and_hash(tmp_path, name, packed):
    values = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(tmp_path / name), useCompression=packed)
    header, data = files_of(tmp_path / name)
    assert header.name == name and {path.name for path in tmp_path.iterdir()} == {name, data.name}
    item = Item("a", "a", Path(name))
    before = stamp(item, tmp_path), content_hash(tmp_path / name)
    data.write_bytes(data.read_bytes()[:-1] + b"\7")
    assert stamp(item, tmp_path) != before[0] and content_hash(tmp_path / name) != before[1]


def test_a_data_file_outside_the_folder_of_its_header_is_refused(tmp_path):
    values = np.zeros((3, 4, 5), np.uint8)
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.mhd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path))
    (tmp_path / "in" / "a.raw").rename(tmp_path / "a.raw")
    for name in ("../a.raw", str(tmp_path / "a.raw")):
        path.write_text(path.read_text().rpartition("=")[0] + f"= {name}\n")
        with pytest.raises(DataError) as caught:
            files_of(path)
        assert caught.value.kind == "outside" and "one folder" in caught.value.remedy


def test_files_that_belong_to_an_image_are_no_images(tmp_path):
    folder = make_pairs(tmp_path / "s", 2)
    for name in ("a0.pgw", "a0.png.aux.xml", "a1.wld"):
        (folder / "images" / name).write_text(PLACE)
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.uint8)), str(folder / "images/v.mhd")
    )
    data = params_for(folder).data.model_copy(update={"images": "images/*", "masks": "masks/{stem}.*"})
    items = layouts.find(data, folder)
    assert [str(item.image) for item in items] == ["images/a0.png", "images/a1.png", "images/v.mhd"]
    waiting = ["images/b.pgw", "images/b.png.aux.xml", "images/v.zraw", "images/notes.docx"]
    assert without_image(data, waiting) == waiting[:3]
