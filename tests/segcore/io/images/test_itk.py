"""MetaImage and NRRD: the same values and positions as NIfTI, and the errors of unusable files."""

import nibabel
import numpy as np
import pytest
import SimpleITK

from segcore.errors import DataError
from segcore.io.images import open_source

VALUES = np.random.default_rng(0).integers(0, 5000, (4, 20, 24)).astype(np.int16)
COS, SIN = np.cos(0.2), np.sin(0.2)
DIRECTIONS = [
    (1, 0, 0, 0, 1, 0, 0, 0, 1),
    (COS, -SIN, 0, SIN, COS, 0, 0, 0, 1),
    (0, 0, -1, 1, 0, 0, 0, -1, 0),
]
NAMES = ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"]


def written(path, values=VALUES, directions=DIRECTIONS[0], packed=False, **options):
    image = SimpleITK.GetImageFromArray(values, **options)
    if image.GetDimension() == 3:
        image.SetSpacing((0.5, 0.6, 3))
        image.SetOrigin((1, 2, 3))
        image.SetDirection(directions)
    SimpleITK.WriteImage(image, str(path), useCompression=packed)
    return path


def planes(path, **options):
    with open_source(path, **options) as source:
        info = source.info
        return np.stack([source.read(plane=i).pixels for i in range(info.depth)]), info


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("directions", DIRECTIONS)
def test_planes_and_positions_are_those_of_the_same_volume_as_nifti(tmp_path, directions, name, packed):
    expected, nifti = planes(written(tmp_path / "a.nii.gz", directions=directions))
    found, info = planes(written(tmp_path / name, directions=directions, packed=packed))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(info.canonical, nifti.canonical, atol=1e-4)
    assert (info.order, info.spacing, info.placed) == (nifti.order, pytest.approx(nifti.spacing), True)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_several_values_per_voxel_and_a_fourth_dimension_are_bands(tmp_path, name):
    values = np.random.default_rng(1).integers(0, 255, (3, 4, 5, 2)).astype(np.uint8)
    found, info = planes(written(tmp_path / name, values, isVector=True))
    np.testing.assert_array_equal(found, np.moveaxis(values[:, :, ::-1], -1, 1))
    assert info.bands == 2
    found, info = planes(written(tmp_path / name, np.moveaxis(values, -1, 0), isVector=False))
    # A file that SimpleITK writes without origin and spacing has no position; its default is turned like any other.
    np.testing.assert_array_equal(found, np.moveaxis(values[:, :, ::-1], -1, 1))
    assert info.bands == 2 and not info.placed


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_a_picture_is_one_plane(tmp_path, name):
    found, info = planes(written(tmp_path / name, VALUES[0]))
    assert found.shape == (1, 1, 20, 24) and not info.placed
    np.testing.assert_array_equal(found[0, 0], VALUES[0, :, ::-1])


def test_a_file_without_origin_and_directions_has_no_position(tmp_path):
    written(tmp_path / "a.mhd")
    header = (tmp_path / "a.mhd").read_text().splitlines()
    plain = [
        line for line in header if not line.startswith(("TransformMatrix", "Offset", "CenterOfRotation"))
    ]
    (tmp_path / "a.mhd").write_text("\n".join(plain) + "\n")
    assert not planes(tmp_path / "a.mhd")[1].placed


def damages():
    def changed(old, new):
        return lambda data: data.replace(old, new)

    half = len(VALUES.tobytes()) // 3
    yield "unreadable", lambda data: data[: len(data) - half]
    yield "unreadable", lambda data: data[:half] + bytes(20) + data[half + 20 :]
    yield "unreadable", lambda data: b"no volume"
    yield "unreadable", changed(b"24 20 4", b"2400 2000 800")
    yield "too-large", changed(b"24 20 4", b"240000 200000 80")
    yield "too-large", changed(b"24 20 4", b"24 20 2")
    yield "outside", changed(b"= LOCAL", b"= /etc/passwd")


@pytest.mark.parametrize(("kind", "damage"), damages())
def test_damaged_packed_files_are_refused(tmp_path, kind, damage):
    path = written(tmp_path / "a.mha", packed=True)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        planes(path)
    assert caught.value.kind == kind and caught.value.what.startswith("a.mha: ") and caught.value.remedy
    assert str(tmp_path) not in caught.value.what


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_a_truncated_plain_file_is_refused_before_it_is_read(tmp_path, name):
    path = written(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="header declares 3840 bytes"), open_source(path):
        pass


def test_slices_in_files_of_their_own_are_read_by_list_and_by_pattern(tmp_path):
    written(tmp_path / "a.mhd")
    header = (tmp_path / "a.mhd").read_text().rpartition("ElementDataFile")[0]
    for number, plane in enumerate(VALUES):
        (tmp_path / f"s{number}.raw").write_bytes(plane.tobytes())
    for data in ("LIST\n" + "\n".join(f"s{i}.raw" for i in range(4)), "s%d.raw 0 3 1"):
        (tmp_path / "b.mhd").write_text(f"{header}ElementDataFile = {data}\n")
        np.testing.assert_array_equal(planes(tmp_path / "b.mhd")[0], planes(tmp_path / "a.mhd")[0])


def test_a_prediction_is_written_on_the_grid_of_the_file(tmp_path):
    from segcore.prediction.writers.nifti import write_prediction

    found, info = planes(written(tmp_path / "a.nrrd", VALUES % 3, DIRECTIONS[2]))
    write_prediction(tmp_path / "out.nii.gz", found[:, 0].astype(np.uint8), info)
    image = SimpleITK.ReadImage(str(tmp_path / "out.nii.gz"))
    source = SimpleITK.ReadImage(str(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), VALUES % 3)
    np.testing.assert_allclose(image.GetDirection(), source.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), source.GetOrigin(), atol=1e-5)
    assert nibabel.load(tmp_path / "out.nii.gz").shape == (24, 20, 4)
