"""Folders, links, pipes, archives, odd names and wrong files in the place of a picture."""

import os
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.tiny import blobs
from tests.system.bad_inputs.pictures import PICTURES, SIZE

case = PICTURES.case


@case("empty-file", "0 bytes")
def empty_image(pair):
    pair.image.write_bytes(b"")


@case("empty-file", "0 bytes", of="mask")
def empty_mask_file(pair):
    pair.mask.write_bytes(b"")


@case("missing-mask", "has no mask, masks/without_mask_m.* is missing")
def without_mask(pair):
    pair.mask.unlink()


@case("missing-mask", "2 files match")
def two_masks(pair):
    Image.open(pair.mask).save(pair.mask.with_suffix(".bmp"))


@case("unreadable", "is a folder that holds no DICOM image", of="mask")
def mask_is_a_folder(pair):
    pair.mask.unlink()
    pair.mask.mkdir()


@case("unreadable", "is a folder that holds no DICOM image")
def folder_named_like_a_picture(pair):
    pair.mask = pair.mask.rename(pair.mask.with_name(f"{pair.image.name}_m.png"))
    pair.image.unlink()
    pair.image.mkdir()
    (pair.image / "notes.txt").write_text("nothing to see")


@case("unreadable", "is a FIFO")
def fifo_as_image(pair):
    pair.image.unlink()
    os.mkfifo(pair.image)


@case("unreadable", "is a FIFO", of="mask")
def fifo_as_mask(pair):
    pair.mask.unlink()
    os.mkfifo(pair.mask)


@case("unreadable", "is a socket")
def socket_as_image(pair):
    pair.image.unlink()
    os.mknod(pair.image, stat.S_IFSOCK | 0o600)


@case("outside", "is outside the source folder")
def image_linked_from_outside(pair):
    elsewhere = pair.source.parent / "elsewhere.png"
    pair.image.rename(elsewhere)
    pair.image.symlink_to(elsewhere)


@case("outside", "is outside the source folder", of="mask")
def mask_linked_to_a_device(pair):
    pair.mask.unlink()
    pair.mask.symlink_to("/dev/zero")


@case("outside", "is outside the source folder")
def linked_folder(pair):
    outside = pair.source.parent / "outside"
    outside.mkdir()
    pair.image.rename(outside / "x.png")
    pair.image.symlink_to(outside)


@case("unreadable", "levels of symbolic links")
def link_to_itself(pair):
    pair.image.unlink()
    pair.image.symlink_to(pair.image.name)


@case("unreadable", "No such file")
def link_to_nothing(pair):
    pair.image.unlink()
    pair.image.symlink_to("nothing.png")


@case("unknown-format", "unsupported file extension '.psd'")
def unsupported_extension(pair):
    pair.image = pair.image.rename(pair.image.with_suffix(".psd"))


@case("archive", "is an archive")
def zip_of_pictures(pair):
    with zipfile.ZipFile(pair.replace_image("zip_of_pictures.zip"), "w") as archive:
        archive.write(pair.mask)
        archive.writestr("notes.txt", "and text")


@case("archive", "is an archive")
def tar_of_mixed_content(pair):
    with tarfile.open(pair.replace_image("tar_of_mixed_content.tar.gz"), "w:gz") as archive:
        archive.add(pair.mask, "a/mask.png")


@case("bad-name", "control or undecodable")
def name_with_newline(pair):
    pair.image = pair.image.rename(pair.image.with_name("name_with\nnewline.png"))


@case("bad-name", "control or undecodable")
def name_that_steers_the_terminal(pair):
    pair.image = pair.image.rename(pair.image.with_name("red\x1b[31m.png"))


@case("bad-name", "control or undecodable")
def name_of_undecodable_bytes(pair):
    pair.image = pair.image.rename(Path(os.fsdecode(os.fsencode(pair.image.parent) + b"/caf\xe9.png")))


@case("")
def name_with_spaces_and_letters_of_many_scripts(pair):
    pair.image = pair.image.rename(pair.image.with_name("Städte & 東京 #1.png"))
    pair.mask = pair.mask.rename(pair.mask.with_name("Städte & 東京 #1_m.png"))


@case("")
def name_of_200_letters(pair):
    pair.image = pair.image.rename(pair.image.with_name("x" * 200 + ".png"))
    pair.mask = pair.mask.rename(pair.mask.with_name("x" * 200 + "_m.png"))


@case("")
def names_that_differ_in_case_alone(pair):
    image, mask = blobs(*SIZE, seed=pair.seed + 500)
    Image.fromarray(image).save(pair.image.with_name(pair.image.name.upper()))
    Image.fromarray(mask * 255).save(pair.mask.with_name(f"{pair.image.stem.upper()}_m.png"))


@case("same-id", "give the same id 'same_id'")
def same_id(pair):
    Image.open(pair.image).save(pair.image.with_suffix(".bmp"))


@case("swapped", "image and mask are swapped")
def swapped(pair):
    image, mask = pair.image.read_bytes(), pair.mask.read_bytes()
    pair.image.write_bytes(mask)
    pair.mask.write_bytes(image)


@case("same-file", "same content")
def mask_that_is_a_copy_of_its_image(pair):
    Image.open(pair.mask).save(pair.image)


@case("duplicate", "same content")
def copy_of_another(pair):
    pair.image.write_bytes((pair.source / "images" / "sound0.png").read_bytes())


@case("near-duplicate", "perceptual hashes differ")
def brighter_copy_of_another(pair):
    image = np.array(Image.open(pair.source / "images" / "sound1.png"))
    Image.fromarray(image + np.uint8(4)).save(pair.image)
