import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segcore.errors import DataError, ParamsError
from segcore.io.grid import check_same_grid
from segcore.io.images import info as header
from segcore.io.images import open_source
from segcore.prediction.writers.nifti import stack_predictions, write_prediction
from tests.support.volumes import affine_for, overwrite_header, write_nifti

SHAPE = (6, 7, 5)
NAMES = (Path("image.nii"), Path("mask.nii"))
ORIENTATIONS = [("RAS", 0.0), ("LPS", 0.0), ("PIR", 0.0), ("SLA", 0.0), ("RAS", 0.4), ("LIP", -0.3)]


def labels(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


def planes(path, slices="auto"):
    with open_source(path, slices) as source:
        return np.stack([source.read(plane=i).pixels for i in range(source.info.depth)]), source.info


def fails(path, kind, *words):
    with pytest.raises(DataError) as caught, open_source(path) as source:
        source.read()
    assert caught.value.kind == kind
    assert caught.value.what.startswith(path.name)
    assert caught.value.remedy
    for word in words:
        assert word in caught.value.what
    return caught.value


@pytest.mark.parametrize("slices", ["auto", 0, 1, 2])
@pytest.mark.parametrize(("codes", "turn"), ORIENTATIONS)
def test_prediction_equal_to_the_labels_is_written_as_the_label_file(tmp_path, codes, turn, slices):
    affine = affine_for(codes, turn=turn)
    path = write_nifti(tmp_path / "label.nii.gz", labels(), affine)
    found, info = planes(path, slices)
    write_prediction(tmp_path / "out.nii.gz", found[:, 0].astype(np.uint8), info)
    written, source = nibabel.load(tmp_path / "out.nii.gz"), nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels())
    np.testing.assert_array_equal(written.affine, affine)
    assert written.get_data_dtype() == np.uint8
    assert written.header.get_zooms() == source.header.get_zooms()
    assert nibabel.aff2axcodes(written.affine) == nibabel.aff2axcodes(source.affine) == tuple(codes)
    np.testing.assert_allclose(written.header.get_qform(), affine, atol=1e-4)


@pytest.mark.parametrize("slices", [0, 1, 2])
@pytest.mark.parametrize(("codes", "turn"), ORIENTATIONS)
def test_the_affines_of_file_and_planes_agree_for_each_pixel(tmp_path, codes, turn, slices):
    path = write_nifti(
        tmp_path / "v.nii", np.arange(210, dtype=np.int16).reshape(SHAPE), affine_for(codes, turn=turn)
    )
    found, info = planes(path, slices)
    place = np.argwhere(found[:, 0] >= 0)
    mm = np.c_[place, np.ones(len(place))] @ np.reshape(info.canonical, (4, 4)).T
    voxel = np.rint(mm @ np.linalg.inv(np.reshape(info.affine, (4, 4))).T)[:, :3].astype(int)
    np.testing.assert_array_equal(np.ravel_multi_index(voxel.T, SHAPE), found[:, 0].ravel())
    steps = np.reshape(info.canonical, (4, 4))[:3, :3]
    np.testing.assert_allclose(np.linalg.norm(steps, axis=0), info.spacing)
    # Planes go along +axis; rows go down, or to the back; columns go to the right, or to the front.
    rows, columns = {0: (2, 1), 1: (2, 0), 2: (1, 0)}[slices]
    assert np.abs(steps).argmax(axis=0).tolist() == [slices, rows, columns]
    assert steps[slices, 0] > 0 and steps[rows, 1] < 0 and steps[columns, 2] > 0


def test_planes_are_equal_for_any_order_of_axes_in_the_file(tmp_path):
    image = nibabel.Nifti1Image(labels(), affine_for("RAS"))
    plain, info = planes(write_nifti(tmp_path / "ras.nii", labels(), image.affine))
    for codes in ("LPS", "PIR", "SAL"):
        other = image.as_reoriented(
            nibabel.orientations.ornt_transform(
                nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
            )
        )
        found, turned = planes(
            write_nifti(tmp_path / f"{codes}.nii", np.asarray(other.dataobj), other.affine)
        )
        np.testing.assert_array_equal(found, plain)
        assert turned.orientation == codes and turned.affine != info.affine
        check_same_grid(info, turned, NAMES)


def test_a_mask_that_is_shifted_or_mirrored_is_refused_with_both_affines(tmp_path):
    info = header(write_nifti(tmp_path / "image.nii", labels()))
    mirrored, moved, near = affine_for("LAS"), affine_for("RAS"), affine_for("RAS")
    moved[0, 3] += 0.5
    near[0, 3] += 0.05
    for affine in (mirrored, moved):
        mask = header(write_nifti(tmp_path / "mask.nii", labels(), affine))
        with pytest.raises(
            DataError, match=r"voxel affines differ, image RAS \(1\.0.*mask (LAS|RAS) \("
        ) as caught:
            check_same_grid(info, mask, NAMES)
        assert caught.value.kind == "affine-mismatch"
    check_same_grid(info, header(write_nifti(tmp_path / "mask.nii", labels(), near)), NAMES)


def test_planes_are_cut_along_the_coarsest_axis_and_the_last_of_equal_ones(tmp_path):
    def axis(codes, spacing, shape=SHAPE, slices="auto"):
        path = write_nifti(tmp_path / "v.nii", labels(shape), affine_for(codes, spacing))
        with open_source(path, slices) as source:
            return source.info.axis, source.info.depth

    assert axis("RAS", (1, 1, 1)) == (2, 5)
    assert axis("RAS", (1, 3, 1)) == (1, 7)
    assert axis("PIR", (1, 1, 3)) == (0, 5)
    assert axis("RAS", (3, 3, 1)) == (1, 7)
    assert axis("RAS", (1, 1, 3), (1, 7, 5), 2) == (0, 1)  # a single slice stays the slice it is
    with pytest.raises(ParamsError, match="not an axis"):
        axis("RAS", (1, 1, 1), slices=3)


def test_windows_are_parts_of_the_plane(tmp_path):
    path = write_nifti(tmp_path / "v.nii", labels())
    with open_source(path, 2) as source:
        whole, part = source.read(plane=3), source.read((2, 1, 3, 4), plane=3)
    np.testing.assert_array_equal(part.pixels, whole.pixels[:, 2:5, 1:5])
    assert part.valid.shape == (3, 4)


def test_type_on_disk_is_kept_and_scaled_values_are_float32(tmp_path):
    values = labels().astype(np.int16)
    for dtype in (np.uint8, np.int16, np.uint16, np.float32, np.float64):
        found, info = planes(write_nifti(tmp_path / "v.nii", values.astype(dtype)))
        assert info.dtype == np.dtype(dtype).name == found.dtype
    swapped = nibabel.Nifti1Image(values, np.eye(4), nibabel.Nifti1Header(endianness=">"), dtype=np.int16)
    nibabel.save(swapped, tmp_path / "big.nii")
    found, info = planes(tmp_path / "big.nii", 2)
    assert info.dtype == "int16" and found.dtype.isnative and found.max() == 2
    path = write_nifti(tmp_path / "s.nii.gz", values, scl_slope=0.5, scl_inter=-1)
    found, info = planes(path)
    assert info.dtype == "float32" == found.dtype
    assert sorted(np.unique(found)) == [-1, -0.5, 0]


def test_nan_and_infinite_voxels_are_not_valid(tmp_path):
    values = np.ones(SHAPE, np.float32)
    values[0, 0, 0], values[1, 0, 0] = np.nan, np.inf
    with open_source(write_nifti(tmp_path / "v.nii", values), 2) as source:
        assert (~source.read(plane=0).valid).sum() == 2
        assert source.read(plane=1).valid.all()


def test_a_short_fourth_dimension_is_bands_and_a_long_one_is_refused(tmp_path):
    values = np.stack([labels(seed=i) for i in range(4)], axis=-1)
    found, info = planes(write_nifti(tmp_path / "v.nii.gz", values), 2)
    assert info.bands == 4 and found.shape == (5, 4, 7, 6)
    np.testing.assert_array_equal(found[2, 3], values[:, ::-1, 2, 3].T)
    _, info = planes(write_nifti(tmp_path / "one.nii", values[..., :1]))
    assert info.bands == 1
    fails(write_nifti(tmp_path / "t.nii", np.zeros((2, 2, 2, 40), np.uint8)), "not-3d", "2 x 2 x 2 x 40")


def test_a_picture_saved_as_nifti_is_one_plane(tmp_path):
    values = labels((6, 7))
    found, info = planes(write_nifti(tmp_path / "v.nii", values))
    assert (info.depth, info.height, info.width) == (1, 7, 6)
    np.testing.assert_array_equal(found[0, 0], values[:, ::-1].T)


def test_nifti2_is_read(tmp_path):
    nibabel.save(nibabel.Nifti2Image(labels(), affine_for("LPS")), tmp_path / "v.nii.gz")
    found, info = planes(tmp_path / "v.nii.gz")
    assert info.orientation == "LPS" and found.shape == (5, 1, 7, 6)


def test_units_other_than_mm_become_mm(tmp_path):
    path = write_nifti(tmp_path / "v.nii", labels())
    overwrite_header(path, xyzt_units=3)  # microns
    assert header(path).spacing == pytest.approx((0.004, 0.0015, 0.001))


def test_colour_and_complex_types_are_refused(tmp_path):
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    fails(write_nifti(tmp_path / "rgb.nii", rgb), "not-3d", "RGB")
    fails(write_nifti(tmp_path / "c.nii", np.zeros(SHAPE, np.complex64)), "not-3d", "complex64")


def test_spacing_or_affine_that_cannot_be_used_is_named(tmp_path):
    path = write_nifti(tmp_path / "v.nii", labels(), pixdim=[1, 1, 0, 1, 0, 0, 0, 0])
    fails(path, "bad-affine", "pixdim", "1 x 0 x 1")
    path = write_nifti(tmp_path / "v.nii", labels(), srow_x=[1, 1, 0, 0], srow_y=[1, 1, 0, 0])
    fails(path, "bad-affine", "singular")
    fails(write_nifti(tmp_path / "v.nii", labels(), srow_z=[0, 0, np.nan, 0]), "bad-affine", "nan")
    path = write_nifti(tmp_path / "v.nii", labels(), srow_x=[0, 0, 0, 0])
    fails(path, "bad-affine", "length 0")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_damaged_files_are_refused(tmp_path, ending):
    path = tmp_path / f"v{ending}"
    path.write_bytes(b"")
    fails(path, "empty-file")
    path.write_bytes(b"no volume at all" * 100)
    fails(path, "unreadable")
    write_nifti(path, np.random.default_rng(0).integers(0, 255, (20, 20, 20)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-2000])
    fails(path, "unreadable")
    write_nifti(path, labels(), datatype=999)
    fails(path, "unreadable")
    write_nifti(path, labels(), dim=[3, 6, -7, 5, 1, 1, 1, 1])
    fails(path, "unreadable")


def test_a_changed_byte_in_a_packed_file_is_found_by_its_checksum(tmp_path):
    raw = bytearray(write_nifti(tmp_path / "v.nii", labels()).read_bytes())
    packed = bytearray(gzip.compress(bytes(raw), compresslevel=0))
    packed[-60] ^= 1
    (tmp_path / "v.nii.gz").write_bytes(packed)
    fails(tmp_path / "v.nii.gz", "unreadable")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_header_that_asks_for_more_than_the_file_holds_takes_no_memory(tmp_path, ending):
    path = write_nifti(tmp_path / f"v{ending}", labels(), dim=[3, 2500, 2500, 2500, 1, 1, 1, 1])
    fails(path, "unreadable", "15625000")
    write_nifti(path, labels(), dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    fails(path, "too-large", "35181150961663")
    # at opening, before any voxel is read
    with pytest.raises(DataError):
        header(path)


def test_packed_file_that_unpacks_to_more_than_it_declares_is_refused(tmp_path):
    plain = write_nifti(tmp_path / "v.nii", labels()).read_bytes()
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(plain + b"\0" * 2**22))
    fails(tmp_path / "v.nii.gz", "too-large")


def test_random_damage_of_a_header_gives_a_data_error_or_a_volume(tmp_path):
    rng = np.random.default_rng(0)
    path = write_nifti(tmp_path / "v.nii", labels())
    good, refused = path.read_bytes(), 0
    for _ in range(300):
        data = bytearray(good)
        for at in rng.integers(0, 348, 4):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            planes(path)
        except DataError:
            refused += 1
    assert refused > 30


def test_stack_needs_every_plane(tmp_path):
    found, info = planes(write_nifti(tmp_path / "v.nii", labels()))
    parts = dict(enumerate(found[:, 0]))
    np.testing.assert_array_equal(stack_predictions(dict(reversed(parts.items())), info), found[:, 0])
    del parts[3]
    with pytest.raises(ValueError, match=r"\[3\]"):
        stack_predictions(parts, info)
    with pytest.raises(ValueError, match="prediction"):
        write_prediction(tmp_path / "out.nii", found[:2, 0], info)
