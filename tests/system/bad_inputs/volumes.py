"""Bad NIfTI volumes."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from tests.support.volumes import affine_for, overwrite_header, write_nifti
from tests.system.bad_inputs.case import DataSet, Pair, cut, scramble

SHAPE = (12, 10, 5)


def content(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Volume (uint16) and mask (uint8, 0 and 255)."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 2:7, 1:4] = 255
    return rng.integers(100, 900, SHAPE).astype(np.uint16) + mask, mask


def nifti_pair(folder: Path, name: str, seed: int) -> Pair:
    made = Pair(folder / "images" / f"{name}.nii.gz", folder / "masks" / f"{name}_m.nii.gz", seed)
    image, mask = content(seed)
    write_nifti(made.image, image)
    write_nifti(made.mask, mask)
    return made


VOLUMES = DataSet(
    "volumes",
    nifti_pair,
    {"images": "images/{file}", "masks": "masks/{stem}_m.*", "label_values": {0: 0, 255: 1}},
)
case = VOLUMES.case


@case("unreadable", "damaged or truncated")
def truncated_nifti(pair):
    cut(pair.image)


@case("unreadable", "header declares 1552 bytes of data, but the file has only 1241")
def truncated_voxels(pair):
    path = write_nifti(pair.replace_image("truncated_voxels.nii"), content(pair.seed)[0])
    cut(path, 0.8)


@case("unreadable", "damaged or truncated")
def damaged_gzip(pair):
    scramble(pair.image)


@case("unreadable", "damaged or truncated")
def nifti_without_gzip(pair):
    pair.image.write_bytes(gzip.decompress(pair.image.read_bytes()))


@case("unreadable", "is not a NIfTI file")
def text_as_nifti(pair):
    pair.replace_image("text_as_nifti.nii").write_text("no NIfTI " * 100)


@case("too-large", "header declares")
def nifti_of_30000_cubed(pair):
    overwrite_header(pair.image, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])


@case("unreadable", "header declares")
def nifti_of_3000_cubed_in_a_small_file(pair):
    overwrite_header(pair.image, dim=[3, 2000, 2000, 2000, 1, 1, 1, 1])


@case("too-large", "unpacks to more than its header declares")
def nifti_that_unpacks_to_more(pair):
    raw = gzip.decompress(pair.image.read_bytes())
    pair.image.write_bytes(gzip.compress(raw + bytes(2**24)))


@case("unreadable", "")
def nifti_of_no_rows(pair):
    overwrite_header(pair.image, dim=[3, 12, 0, 5, 1, 1, 1, 1])


@case("not-3d", "has 4 dimensions, 12 x 10 x 5 x 40")
def series_in_time(pair):
    values = np.repeat(content(pair.seed)[0][..., None], 40, axis=3)
    write_nifti(pair.image, values)


@case("not-3d", "colour or complex type")
def nifti_of_colours(pair):
    values = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(values, affine_for("RAS")), pair.image)


@case("bad-affine", "voxel spacing (pixdim) is 1 x 0 x 4")
def spacing_of_zero(pair):
    overwrite_header(pair.image, pixdim=[1, 1, 0, 4, 1, 1, 1, 1])


@case("bad-affine", "voxel spacing (pixdim) is nan")
def spacing_that_is_no_number(pair):
    overwrite_header(pair.image, pixdim=[1, np.nan, 1, 4, 1, 1, 1, 1])


@case("bad-affine", "is singular")
def singular_affine(pair):
    overwrite_header(pair.image, srow_x=[1, 1, 0, 0], srow_y=[1, 1, 0, 0])


@case("bad-affine", "NaN or infinite")
def affine_of_nan(pair):
    overwrite_header(pair.image, srow_x=[np.nan, 0, 0, 0])


@case("spacing-mismatch", "voxel spacings differ, image (4.0, 1.5, 1.0) mm, mask (5.0, 1.5, 1.0) mm")
def mask_of_other_spacing(pair):
    write_nifti(pair.mask, content(pair.seed)[1], affine_for("RAS", (1.0, 1.5, 5.0)))


@case("affine-mismatch", "voxel affines differ, image RAS")
def mask_flipped_left_to_right(pair):
    write_nifti(pair.mask, content(pair.seed)[1], affine_for("LAS"))


@case("size-mismatch", "image 5 x 10 x 12, mask 4 x 10 x 12")
def mask_of_fewer_slices(pair):
    write_nifti(pair.mask, content(pair.seed)[1][..., :4])


@case("label-fractions", "holds fractions (float32)", of="mask")
def volume_mask_resampled_to_fractions(pair):
    write_nifti(pair.mask, content(pair.seed)[1].astype(np.float32) / 400)


@case("label-values", "outside the declared classes: 4 (75)", of="mask")
def volume_mask_of_another_value(pair):
    write_nifti(pair.mask, content(pair.seed)[1] // 63)


@case("swapped", "image and mask are swapped")
def swapped_volumes(pair):
    image, mask = pair.image.read_bytes(), pair.mask.read_bytes()
    pair.image.write_bytes(mask)
    pair.mask.write_bytes(image)


@case("other-dtype", "dtype is float32, most others have uint16")
def volume_of_another_type(pair):
    write_nifti(pair.image, content(pair.seed)[0].astype(np.float32))


@case("unreadable", "header of a pair")
def header_of_a_pair(pair):
    path = write_nifti(pair.replace_image("header_of_a_pair.nii"), content(pair.seed)[0])
    overwrite_header(path, magic=b"ni1")


@case("turned", "stored as PIR")
def volume_of_sagittal_slices(pair):
    affine = affine_for("PIR")
    write_nifti(pair.image, content(pair.seed)[0], affine)
    write_nifti(pair.mask, content(pair.seed)[1], affine)


@case("scaled", "stored values x 5 + 0")
def mask_with_a_scale(pair):
    write_nifti(pair.mask, content(pair.seed)[1] // 5, scl_slope=5, scl_inter=0)


@case("affine-mismatch", "the file of the mask has no position")
def mask_saved_without_the_affine(pair):
    nibabel.save(nibabel.Nifti1Image(content(pair.seed)[1], None), pair.mask)


ARRAYS = DataSet("arrays", nifti_pair, {**VOLUMES.data, "trust_shape": True, "pages": "planes"})


@ARRAYS.case("trusted-shape", "the mask is taken in the order of its array")
def trusted_mask_without_an_affine(pair):
    nibabel.save(nibabel.Nifti1Image(content(pair.seed)[1], None), pair.mask)


@ARRAYS.case("pages-read", "5 frames are read as planes")
def stack_as_an_animation(pair):
    for path, planes in zip((pair.image, pair.mask), content(pair.seed), strict=True):
        frames = [
            Image.fromarray(np.ascontiguousarray(plane.T.astype(np.uint16)))
            for plane in np.moveaxis(planes, 2, 0)
        ]
        target = pair.replace_image("stack_as_an_animation.png") if path == pair.image else None
        target = target or pair.replace_mask("stack_as_an_animation_m.png")
        frames[0].save(target, save_all=True, append_images=frames[1:])
