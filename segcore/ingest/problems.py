"""All kinds of bad input: what they mean, and whether the item is quarantined or only noted.

`python -m segcore.ingest.problems` prints the table. tests/system/bad_inputs produces each kind, and
`python -m tests.system.bad_inputs.cases` prints docs/guide/bad-input.md with the texts from there.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of problem.

    Attributes:
        meaning: what is wrong.
        outcome: the item is "quarantined" or "noted", or the whole ingest "fails".
        advice: what to do about a note; errors have their own remedy.
    """

    meaning: str
    outcome: str = "quarantined"
    advice: str = ""


KINDS: dict[str, Kind] = {
    # found in names and settings
    "no-folder": Kind("the source folder is missing", "fails"),
    "no-images": Kind("no image matches the pattern, or a source that had images is empty", "fails"),
    "no-layout": Kind("the layout is unknown", "fails"),
    "no-list": Kind("the list of items is missing, unreadable or without a required column", "fails"),
    "bad-pattern": Kind("a pattern has an unknown placeholder", "fails"),
    "other-labels": Kind("dataset.json of nnU-Net has other labels than data.label_values", "fails"),
    "unmatched-key": Kind(
        "no mask of the whole data set has a class that data.label_values declares", "fails"
    ),
    "all-bad": Kind("more items are unusable than data.max_quarantined allows", "fails"),
    "no-unlabelled": Kind(
        "annotations leave pixels without a label, data.background is null and data.unlabelled is not set",
        "fails",
    ),
    "no-object-class": Kind(
        "polygons without a property could be of several classes, because data.background is null", "fails"
    ),
    "missing-mask": Kind("an image has no mask"),
    "missing-channel": Kind("a file with further bands of an image is missing, or there is one too many"),
    "missing-cases": Kind(
        "fewer cases are there than dataset.json of nnU-Net declares",
        "noted",
        "copy the missing cases, or correct numTraining in dataset.json",
    ),
    "shared-mask": Kind(
        "several images have the same mask",
        "noted",
        "if they are channels of one image, such as T1 and T2, make data.images a list with a pattern for each; if "
        "not, set data.group so that they are in one group",
    ),
    "class-absent": Kind(
        "there is no file for a class of data.masks, so no pixel is of it",
        "noted",
        "if the image has pixels of the class, add the file",
    ),
    "mask-without-image": Kind(
        "a mask has no image", "noted", "add the image, correct data.images if it exists, or remove the mask"
    ),
    "images-unmatched": Kind(
        "images that data.images does not match, only because their extension is spelled otherwise (.JPG, .jpeg)",
        "noted",
        "to use them, write in data.images the pattern that the note names; otherwise move them out of the folder",
    ),
    "entry-without-image": Kind(
        "an annotation file has entries of images that the data set does not have",
        "noted",
        "if the images exist, correct data.images so that it matches them, such as `images/*`, or add them; otherwise "
        "remove the entries",
    ),
    "same-id": Kind("two images give the same id"),
    "unknown-format": Kind("unsupported file extension"),
    "archive": Kind("an archive in place of an image or mask"),
    "outside": Kind("a path or symbolic link leads outside the source folder"),
    "bad-name": Kind("a name contains a newline or another control character"),
    "unknown-split": Kind("a split of the data set has a name that is not in data.splits"),
    # found by reading
    "empty-file": Kind("the file is empty (0 bytes)"),
    "unreadable": Kind("the file is damaged, truncated or of another format than its extension"),
    "no-permission": Kind("no permission to read the file"),
    "changed": Kind("the file was changed while it was read"),
    "too-large": Kind("the image, or its decompressed content, is larger than allowed (decompression bomb)"),
    "slow": Kind("reading exceeded the time limit"),
    "crashed": Kind("the reader crashed, failed or ran out of memory"),
    "jpeg-mask": Kind("a mask is a JPEG, whose lossy compression changes label values"),
    "size-mismatch": Kind("image and mask differ in size or number of planes"),
    "crs-mismatch": Kind("image and mask differ in coordinate system"),
    "transform-mismatch": Kind("image and mask differ in affine transform"),
    "spacing-mismatch": Kind("volume and mask differ in voxel spacing"),
    "affine-mismatch": Kind("volume and mask differ in position or orientation, or only one has a position"),
    "trusted-shape": Kind(
        "image and mask differ in position; the mask is taken by its array, because data.trust_shape says so",
        "noted",
        "if their arrays do not belong together voxel by voxel, resample the mask to the image's grid",
    ),
    "turned": Kind(
        "planes of a volume are turned or mirrored, so that all have the same orientation",
        "noted",
        "if the orientation is wrong, correct the position in the header (affine; of DICOM, patient orientation)",
    ),
    "orientation-tag": Kind(
        "a picture has an orientation tag (EXIF, TIFF): it is turned as viewers show it, unless it is georeferenced",
        "noted",
        "if its mask was drawn on the stored pixels, save both without the tag",
    ),
    "mask-turned": Kind(
        "a mask or annotation without a position is turned like the stored pixels of its image",
        "noted",
        "if the labels are not on the objects, save image and mask in one format and orientation",
    ),
    "height-ignored": Kind(
        "coordinate systems of image and mask differ only in heights, which are ignored",
        "noted",
        "if their heights matter, bring both to one system",
    ),
    "scaled": Kind(
        "stored values are scaled or inverted on reading, as the header says",
        "noted",
        "if the stored values were meant, correct the scaling in the header",
    ),
    "scale-ignored": Kind(
        "a file declares a scale, an offset or an inversion of its values, and they are read as stored",
        "noted",
        "if scaled values were meant, store them: gdal_translate -unscale -ot Float32, for all files; if the labels of "
        "masks are inverted, exchange their values in data.label_values",
    ),
    "label-values": Kind("a mask has values outside the declared classes, such as 255 in a 0/255 mask"),
    "label-colors": Kind("a mask has colours that are not in data.label_values"),
    "label-bands": Kind("a mask has several different bands instead of class indices"),
    "label-fractions": Kind("a mask has values that are not whole numbers"),
    "labels-rounded": Kind(
        "values of a mask are not whole numbers, but so near that they were rounded",
        "noted",
        "if the values are no class numbers, correct the mask; else save it as integers",
    ),
    "others-class": Kind(
        "the key `others` catches several values of a mask, or a mask of one class has many values",
        "noted",
        "if some of these values have another meaning, declare them in data.label_values; in a file of one class, save "
        "the class as 1 and all else as 0",
    ),
    "smoothed": Kind(
        "a mask of one class was saved with smoothing or compression; the class begins at half of the highest value",
        "noted",
        "if lower values belong to the class, save it again as 1 and all else as 0",
    ),
    "unused-key": Kind(
        "a key of data.label_values matches no mask, while its class has other keys or is `ignore`",
        "noted",
        "if the value was mistyped, correct it; else remove the key",
    ),
    "overlapping-masks": Kind(
        "masks of several classes or objects overlap; the later one counts",
        "noted",
        "list the classes in data.masks so that the one to keep comes last, or correct the masks",
    ),
    "objects-overlap": Kind(
        "objects of an annotation overlap: a pixel belongs to the one that is drawn last",
        "noted",
        "if the lost pixels matter, draw the objects so that they do not overlap",
    ),
    "objects-vanished": Kind(
        "objects of an annotation have no pixel, because others hide them or because they are too small or thin",
        "noted",
        "if they exist, correct the overlap or draw them larger; if not, remove them",
    ),
    "object-numbers": Kind("numbers of objects are negative or too large"),
    "numbers-beside": Kind(
        "the raster of data.objects has numbers where the mask has no foreground class; these pixels are in no object",
        "noted",
        "if they belong to the objects, correct the mask, or data.label_values; else set the numbers there to 0",
    ),
    "numbers-missing": Kind(
        "pixels of a foreground class have no number in the raster of data.objects: they are of the class, and in no "
        "object",
        "noted",
        "if they belong to objects, number them; if only the classes of objects should count, make the others the "
        "background or `ignore`",
    ),
    "mixed-objects": Kind(
        "an object has pixels of several classes: it is of the class of most of its pixels, and the others are in no "
        "object",
        "noted",
        "if each part is an object of its own, give it a number of its own; else correct the classes in the mask",
    ),
    "swapped": Kind("image and mask are swapped"),
    "same-file": Kind("image and mask are the same file, or have the same content"),
    "all-nodata": Kind("no pixel of the image is valid: all are nodata, transparent or NaN"),
    "constant": Kind("every pixel of the image has the same value"),
    "constant-band": Kind(
        "one band of the image has a single value",
        "noted",
        "leave the band out with data.bands, or export it again",
    ),
    "alpha-band": Kind(
        "a band is transparency: it is no band of the image, and transparent pixels are ignored",
        "noted",
        "if it is data, such as near infrared, name it in data.bands",
    ),
    "alpha-as-data": Kind(
        "a band that the file calls alpha is read as data",
        "noted",
        "if it is transparency, name the other bands in data.bands",
    ),
    "control-points": Kind(
        "the position is given by control points or RPCs instead of a transform; predictions get the same",
        "noted",
        "for labels that are polygons on the map, rectify the image first (gdalwarp)",
    ),
    "sidecar": Kind(
        "the position is from a world file, .aux.xml or another file beside the image",
        "noted",
        "check that this file belongs to the image, and keep both together",
    ),
    "nan-pixels": Kind(
        "some pixels are NaN or infinite; they count as nodata",
        "noted",
        "if there are data in these pixels, export the image again with finite values there",
    ),
    "all-ignored": Kind("all pixels of the mask are ignored: nothing is left to train on or score"),
    "empty-mask": Kind(
        "the mask contains only background",
        "noted",
        "if there are objects in the image, label them, or correct data.label_values, data.masks or data.crowds",
    ),
    "one-class": Kind(
        "the mask contains only one class, which is not the background",
        "noted",
        "if other classes are in the image, label them, or correct data.label_values or data.unlabelled",
    ),
    "polygons-unreadable": Kind("the file of polygons or annotations cannot be read or is incomplete"),
    "polygons-outside": Kind(
        "some or all polygons of the file are partly or entirely outside the image",
        "noted",
        "check that polygons and image belong together, and their coordinate systems",
    ),
    "polygons-invalid": Kind(
        "invalid polygons (self-intersecting or empty) were repaired or left out",
        "noted",
        "repair them in the program that they were drawn with",
    ),
    "shapes-skipped": Kind(
        "shapes of an annotation without an area (points, lines, skeletons) or of an unknown type were left out",
        "noted",
        "draw them again as polygons if they are objects",
    ),
    "other-image": Kind(
        "the annotations of one image name another one than the image that they were read for",
        "noted",
        "check that they belong together, and correct data.masks or the name in the annotations",
    ),
    "maybe-percent": Kind(
        "all coordinates of an annotation file are at most 100, although its images are larger: they may be percent",
        "noted",
        "if they are percent, multiply x by the width and y by the height of the image and divide by 100",
    ),
    "crowds-ignored": Kind(
        "COCO annotations marked iscrowd are ignored: not used for training or scores",
        "noted",
        "if they are objects, set data.crowds to `objects`",
    ),
    "crowds-objects": Kind(
        "COCO annotations marked iscrowd are objects, because an exporter marked every run-length mask so",
        "noted",
        "if they are regions of many objects, set data.crowds to `ignore`",
    ),
    "unlabelled": Kind(
        "pixels without a label are ignored or have the class that data.unlabelled names",
        "noted",
        "if that is wrong, correct data.unlabelled",
    ),
    "transparent": Kind(
        "pixels of a mask are transparent, nodata or NaN, or a picture declares a transparent colour: they are "
        "ignored, or not of the class of the file",
        "noted",
        "if they have a class, name it in data.unlabelled, or declare the nodata value in data.label_values; in a "
        "file of one class, save the class as 1 and all else as 0; if a picture's colour is data, save it without "
        "transparency",
    ),
    "polygons-no-crs": Kind("only one of polygons and image has a coordinate system"),
    "unknown-category": Kind("a category or property value is not in data.label_values"),
    "bad-run-length": Kind("a run-length mask does not fit its image"),
    "overlapping-segments": Kind(
        "segments of a DICOM segmentation overlap; the last one counts",
        "noted",
        "export segments that do not overlap",
    ),
    "not-annotated": Kind("the annotation file has no entry for the image"),
    "bad-affine": Kind("the voxel spacing or affine of a volume is zero, singular, NaN or missing"),
    "resampled-bands": Kind(
        "bands in files of their own have another resolution, and were resampled to the first file's grid",
        "noted",
        "to use another resolution, name the file that has it first in data.images",
    ),
    "mixed-series": Kind("a folder contains slices of several DICOM series"),
    "missing-slice": Kind("slices of a DICOM series are missing or duplicated"),
    "pages": Kind(
        "a file has several pages, and neither it nor data.pages says what they are, or they differ"
    ),
    "pages-read": Kind(
        "several pages or frames of a file are read as planes or channels",
        "noted",
        "set data.pages if they are something else than the note says",
    ),
    "not-3d": Kind("a volume has more than three dimensions, or an unsupported colour type"),
    "unusable": Kind("any other reason why a file cannot be used"),
    # found by comparing items
    "band-count": Kind("the number of bands differs from that of most images of data.source"),
    "band-missing": Kind("data.bands names a band that the image does not have"),
    "other-dtype": Kind("the data type differs from that of most images of data.source"),
    "other-scale": Kind(
        "the scale or offset that the file declares differs from that of most images of data.source"
    ),
    "mixed-crs": Kind(
        "coordinate systems differ between images",
        "noted",
        "if pixels are of different size or shape on the ground for that reason, reproject to one coordinate system",
    ),
    "duplicate": Kind(
        "the same content as another item; both go into one split", "noted", "remove one of them"
    ),
    "near-duplicate": Kind(
        "nearly the same picture as another item; both go into one split",
        "noted",
        "if they are the same picture, remove one of them; if they only look alike, leave near-duplicate out of "
        "split.links",
    ),
    "same-place": Kind(
        "overlaps another item on the map, perhaps of another date; both go into one split",
        "noted",
        "if their positions are wrong, correct the georeference of one of them",
    ),
    "relabelled": Kind(
        "the image is already in the data, or in the same delivery, with another mask or georeference"
    ),
    "set-aside": Kind(
        "it is linked to items of different splits and therefore left out",
        "noted",
        "if they only look alike, leave near-duplicate out of split.links, and assign a group without split in "
        "split.given; otherwise remove it",
    ),
}


def table(examples: dict[str, tuple[str, str]] | None = None) -> str:
    """KINDS as a Markdown table: kind, meaning, outcome, example and remedy.

    Args:
        examples: error text or note, and remedy, by kind.
    """

    def cell(text: str) -> str:
        return " ".join(text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*").split())

    lines = [
        "| kind | what it means | outcome | error text or note, for example | remedy |",
        "|---|---|---|---|---|",
    ]
    for name, kind in KINDS.items():
        text, remedy = (examples or {}).get(name, ("", ""))
        cells = (f"`{name}`", kind.meaning, kind.outcome, text, remedy or kind.advice)
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
