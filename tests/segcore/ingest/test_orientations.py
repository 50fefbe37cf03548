"""Image and annotation end in one orientation, whichever of them has a position, an orientation tag, or neither.

An object without any symmetry is drawn in image and annotation; after the ingest its pixels are those with its label.
"""

import itertools
import json

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image
from pydicom.uid import generate_uid

from segcore.data.packed import Packed
from segcore.errors import DataError
from segcore.ingest.inspection import inspect
from segcore.io.images import open_source
from segcore.io.layouts._item import Item
from segcore.prediction.writers.nifti import write_prediction
from tests.support.dicom import multiframe
from tests.support.drawn import cvat, element, labelme, points, shape
from tests.support.tiny import params_for
from tests.support.volumes import affine_for, save, slice_elements, write_nifti

# every way to name the directions of three stored axes
CODES = [
    "".join(pair[flip] for pair, flip in zip(pairs, flips, strict=True))
    for pairs in itertools.permutations(("RL", "AP", "SI"))
    for flips in itertools.product((0, 1), repeat=3)
]
SPACING = (1.0, 1.5, 4.0)
# what viewers do with the pixels as stored, by the value of the tag
SHOWN = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


def an_object(planes, rows, columns):
    """0 and 1 in (planes, rows, columns); no turn or mirror image of it is itself."""
    drawn = np.zeros((planes, rows, columns), np.uint8)
    drawn[: max(1, planes - 1), 1:5, 1] = 1
    drawn[0, 1, 1:4] = 1
    drawn[0, 4, 0] = 1
    return drawn


def brightness(drawn):
    return np.where(drawn == 1, 200, 40).astype(np.uint8)


def nifti(path, array, affine):
    return write_nifti(path, array.transpose(2, 1, 0), affine)


def itk(path, array, affine):
    image = SimpleITK.GetImageFromArray(array)
    if affine is not None:
        lps = np.diag([-1, -1, 1, 1]) @ affine
        image.SetSpacing([float(s) for s in np.linalg.norm(lps[:3, :3], axis=0)])
        image.SetDirection((lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=True)
    return path


def animation(path, array):
    frames = [Image.fromarray(plane) for plane in array]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def dicom(path, array, directions=(1, 0, 0, 0, 1, 0)):
    """One slice; its columns and rows increase along the directions (LPS)."""
    elements = slice_elements(
        Rows=array.shape[1],
        Columns=array.shape[2],
        ImageOrientationPatient=list(directions),
        SeriesInstanceUID=generate_uid(),
        PixelData=array[0].astype("<u2").tobytes(),
    )
    return save(elements, path)


def coco(path, image, drawn, size):
    """Run lengths of an object, with the size in the file."""
    flat = drawn.T.ravel()
    ends = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    counts = np.diff([0, *ends, flat.size]).tolist()
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": {"size": list(drawn.shape), "counts": counts},
    }
    entry = {"id": 1, "file_name": image.name, "height": size[0], "width": size[1]}
    categories = [{"id": 1, "name": "square"}]
    path.write_text(json.dumps({"images": [entry], "annotations": [annotation], "categories": categories}))
    return path


def ingested(folder, image, mask, valid=None, baseline=None, **over):
    """Packed arrays of one item, and the kinds of its notes."""
    table = {0: 0, 1: 1}
    data = params_for(folder).data.model_copy(update={"label_values": table, **over})
    baselines = {"other": baseline.relative_to(folder)} if baseline else {}
    relative = valid.relative_to(folder) if valid else None
    item = Item(
        "a", "a", image.relative_to(folder), mask.relative_to(folder), valid=relative, baselines=baselines
    )
    (folder / "items").mkdir(exist_ok=True)
    row = inspect(item, folder, data, folder / "items", "")
    packed = Packed(folder / "items" / row["packed"])
    names = ["pixels", "labels", "valid"] + (["baselines"] if baseline else [])
    return {name: np.array(packed.array(name)) for name in names}, {kind for kind, _ in row["notes"]}


def labels_are_on_the_object(folder, image, mask, **over):
    """Check an item, and return the kinds of its notes."""
    arrays, notes = ingested(folder, image, mask, **over)
    assert arrays["labels"].sum() > 0
    np.testing.assert_array_equal(arrays["labels"] == 1, arrays["pixels"][..., 0] > 100)
    return notes


def volume_masks(folder, drawn, affine):
    """Masks of a volume by description, each with the notes that it must have and the settings it needs."""
    turned = nibabel.Nifti1Image(drawn.transpose(2, 1, 0), affine)
    turned = nibabel.as_closest_canonical(turned)
    nibabel.save(turned, folder / "canonical.nii")
    nibabel.save(nibabel.Nifti1Image(drawn.transpose(2, 1, 0), None), folder / "none.nii.gz")
    trust = {"trust_shape": True}
    yield nifti(folder / "same.nii.gz", drawn, affine), set(), {}
    yield folder / "canonical.nii", set(), {}
    yield itk(folder / "same.mha", drawn, affine), set(), {}
    yield folder / "none.nii.gz", {"trusted-shape"}, trust
    yield nifti(folder / "eye.nii", drawn, np.eye(4)), {"trusted-shape"}, trust
    yield itk(folder / "none.nrrd", drawn, None), {"trusted-shape"}, trust
    yield animation(folder / "frames.png", drawn), {"mask-turned", "pages-read"}, {}
    yield animation(folder / "pages.tif", drawn), {"mask-turned", "pages-read"}, {}


@pytest.mark.parametrize("codes", CODES)
def test_labels_of_a_volume_are_on_its_object_and_come_back_on_its_grid(tmp_path, codes):
    drawn, affine = an_object(3, 7, 6), affine_for(codes, SPACING)
    slices = ("auto", 0, 1, 2)[CODES.index(codes) % 4]
    for write, name in ((nifti, "image.nii.gz"), (itk, "image.nhdr")):
        image = write(tmp_path / name, brightness(drawn), affine)
        for mask, wanted, over in volume_masks(tmp_path, drawn, affine):
            notes = labels_are_on_the_object(tmp_path, image, mask, slices=slices, **over)
            with open_source(image, slices) as source:
                info = source.info
                planes = np.stack([source.read(plane=i).pixels[0] for i in range(info.depth)])
            # Nothing is turned if the stored array is in the order of the planes.
            turned = {"turned", "mask-turned"} if info.order != (1, 2, 3) else set()
            assert notes - {"turned"} == wanted - ({"mask-turned"} - turned), mask.name
            assert ("turned" in notes) == bool(turned)
        write_prediction(tmp_path / "out.nii.gz", (planes > 100).astype(np.uint8), info)
        written = nibabel.load(tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(np.asarray(written.dataobj), drawn.transpose(2, 1, 0))
        np.testing.assert_allclose(written.affine, affine, atol=1e-5)


@pytest.mark.parametrize(
    "directions", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (0, 1, 0, 1, 0, 0)]
)
@pytest.mark.parametrize("size", [(7, 6), (7, 7)])
def test_pixels_drawn_on_a_dicom_slice_are_turned_like_it(tmp_path, directions, size):
    drawn = an_object(1, *size)
    image = dicom(tmp_path / "image.dcm", brightness(drawn), directions)
    masks = [
        coco(tmp_path / "mask.json", image, drawn[0], size),
        animation(tmp_path / "mask.gif", drawn),
        tagged(tmp_path / "mask.webp", drawn[0], 1),
        animation(tmp_path / "mask.tif", drawn),
        itk(tmp_path / "mask.mha", drawn, None),
    ]
    for mask in masks:
        over = {"trust_shape": True} if mask.suffix == ".mha" else {}
        notes = labels_are_on_the_object(tmp_path, image, mask, **over)
        assert "turned" in notes and notes & {"mask-turned", "trusted-shape"}, mask.name
    valid = animation(tmp_path / "valid.png", drawn)
    other = animation(tmp_path / "other.png", drawn)
    arrays, _ = ingested(tmp_path, image, masks[1], valid, other)
    bright = arrays["pixels"][..., 0] > 100
    np.testing.assert_array_equal(arrays["labels"] != 255, bright)
    np.testing.assert_array_equal(arrays["baselines"][0] == 1, bright)


def tagged(path, array, tag):
    """A picture with an orientation tag and a mask of the same array."""
    if path.suffix == ".tif":
        Image.fromarray(array).save(path, tiffinfo={0x0112: tag})
        return path
    exif = Image.Exif()
    exif[0x0112] = tag
    more = {".webp": {"lossless": True}, ".jpg": {"quality": 100}}.get(path.suffix, {})
    Image.fromarray(array).save(path, exif=exif, **more)
    return path


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("tag", SHOWN)
def test_a_picture_with_an_orientation_tag_is_upright_and_its_labels_with_it(tmp_path, tag, extension):
    stored = np.kron(an_object(1, 6, 5)[0], np.ones((8, 8), np.uint8))
    shown = np.ascontiguousarray(SHOWN[tag](stored))
    image = tagged(tmp_path / f"image{extension}", brightness(stored), tag)
    with open_source(image) as source:
        assert (source.info.height, source.info.width) == shown.shape
        np.testing.assert_array_equal(source.read().pixels[0] > 100, shown == 1)
        np.testing.assert_array_equal(source.read((9, 3, 20, 30)).pixels[0] > 100, shown[9:29, 3:33] == 1)
    Image.fromarray(shown).save(tmp_path / "upright.png")
    masks = [tmp_path / "upright.png", tagged(tmp_path / "own.png", stored, tag)]
    masks += [tagged(tmp_path / "own.tif", stored, tag), coco(tmp_path / "u.json", image, shown, shown.shape)]
    for mask in masks:
        notes = labels_are_on_the_object(tmp_path, image, mask)
        assert notes == ({"orientation-tag"} if tag > 1 else set()), mask.name
    if shown.shape != stored.shape:
        Image.fromarray(stored).save(tmp_path / "stored.png")
        for mask in (tmp_path / "stored.png", coco(tmp_path / "s.json", image, stored, stored.shape)):
            assert labels_are_on_the_object(tmp_path, image, mask) == {"orientation-tag", "mask-turned"}


def test_without_trust_a_mask_without_a_position_is_refused_with_a_remedy_that_works(tmp_path):
    drawn, affine = an_object(3, 7, 6), affine_for("LPS", SPACING)
    image = nifti(tmp_path / "image.nii.gz", brightness(drawn), affine)
    array = drawn.transpose(2, 1, 0)
    for number, other in enumerate((None, np.eye(4), np.diag([-1.0, -1, 1, 1]))):
        mask = tmp_path / f"mask{number}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(array, other), mask)
        with pytest.raises(DataError, match="the file of the mask has no position") as caught:
            ingested(tmp_path, image, mask)
        assert caught.value.kind == "affine-mismatch" and "data.trust_shape: true" in caught.value.remedy
        assert "save the mask's array with the image's affine" in caught.value.remedy
        nibabel.save(
            nibabel.Nifti1Image(np.asarray(nibabel.load(mask).dataobj), nibabel.load(image).affine), mask
        )
        assert labels_are_on_the_object(tmp_path, image, mask) == {"turned"}


def test_a_mask_of_another_shape_is_not_trusted(tmp_path):
    drawn = an_object(3, 7, 6)
    image = nifti(tmp_path / "image.nii.gz", brightness(drawn), affine_for("LPS", SPACING))
    nibabel.save(nibabel.Nifti1Image(drawn, None), tmp_path / "mask.nii.gz")
    with pytest.raises(DataError) as caught:
        ingested(tmp_path, image, tmp_path / "mask.nii.gz", trust_shape=True)
    assert caught.value.kind == "size-mismatch"


def test_volumes_that_both_lack_a_position_belong_together(tmp_path):
    drawn = an_object(3, 7, 6)
    nibabel.save(nibabel.Nifti1Image(brightness(drawn).transpose(2, 1, 0), None), tmp_path / "image.nii.gz")
    nibabel.save(nibabel.Nifti1Image(drawn.transpose(2, 1, 0), None), tmp_path / "mask.nii.gz")
    assert labels_are_on_the_object(tmp_path, tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz") == {
        "turned"
    }


@pytest.mark.parametrize("tag", [1, 6])
def test_a_volume_file_as_mask_of_a_picture_is_taken_in_its_stored_order(tmp_path, tag):
    stored = an_object(1, 7, 6)
    image = tagged(tmp_path / "image.png", brightness(stored)[0], tag)
    for mask in (
        nifti(tmp_path / "mask.nii.gz", stored, affine_for("LPS")),
        numpy_as_nifti(tmp_path / "eye.nii.gz", stored[0], np.eye(4)),
        numpy_as_nifti(tmp_path / "none.nii.gz", stored[0], None),
        itk(tmp_path / "mask.nrrd", stored, None),
    ):
        assert "mask-turned" in labels_are_on_the_object(tmp_path, image, mask), mask.name


def numpy_as_nifti(path, array, affine):
    """An array saved without exchanging its axes: i is its first axis."""
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


@pytest.mark.parametrize("size", [(7, 6), (7, 7)])
def test_an_array_saved_as_nifti_without_a_position_has_its_rows_first(tmp_path, size):
    drawn = an_object(1, *size)[0]
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    for affine in (None, np.eye(4)):
        image = numpy_as_nifti(tmp_path / "image.nii.gz", brightness(drawn), affine)
        for mask in (tmp_path / "mask.png", coco(tmp_path / "mask.json", image, drawn, size)):
            assert "mask-turned" in labels_are_on_the_object(tmp_path, image, mask)


@pytest.mark.parametrize("planes_first", [False, True])
def test_a_stack_drawn_on_an_array_saved_as_nifti_is_turned_by_its_size(tmp_path, planes_first):
    drawn = an_object(3, 7, 6)
    array = brightness(drawn) if planes_first else np.moveaxis(brightness(drawn), 0, -1)
    image = numpy_as_nifti(tmp_path / "image.nii.gz", array, affine_for("LPS"))
    mask = animation(tmp_path / "mask.png", drawn)
    assert "mask-turned" in labels_are_on_the_object(tmp_path, image, mask)


def test_a_stack_drawn_on_a_dicom_file_of_several_frames_is_in_the_order_of_its_frames(tmp_path):
    drawn = an_object(4, 6, 5)
    image = multiframe(tmp_path / "image.dcm", brightness(drawn).astype(np.uint16))
    mask = animation(tmp_path / "mask.png", drawn)
    assert "mask-turned" in labels_are_on_the_object(tmp_path, image, mask)


def drawn_files(folder, image, corners, size):
    """A CVAT and a labelme file with one polygon (column, row) in a picture of a size."""
    cvat(folder / "mask.xml", (image.name, [element("polygon", "1", points=points(corners))]), size=size)
    labelme(folder / "mask.json", [shape("1", corners)], imageHeight=size[0], imageWidth=size[1])
    return [folder / "mask.xml", folder / "mask.json"]


@pytest.mark.parametrize("drawn_as_shown", [False, True])
def test_shapes_of_other_programs_are_turned_like_pixels(tmp_path, drawn_as_shown):
    stored = np.zeros((40, 30), np.uint8)
    stored[4:20, 6:12] = 1
    picture = tagged(tmp_path / "a.png", brightness(stored), 6)
    slice_ = dicom(tmp_path / "a.dcm", brightness(stored)[None])
    for image in (picture, slice_):
        array = SHOWN[6](stored) if drawn_as_shown and image == picture else stored
        rows, columns = np.nonzero(array)
        left, top, right, bottom = map(int, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        for mask in drawn_files(tmp_path, image, corners, array.shape):
            notes = labels_are_on_the_object(tmp_path, image, mask)
            assert ("mask-turned" in notes) == (image == slice_ or not drawn_as_shown), mask.name
