"""Every kind of bad input there is: what it means and whether the item is quarantined or only noted.

`python -m segcore.ingest.problems` prints the table; tests/system/bad_inputs makes each kind in code, and with
the texts seen there `python -m tests.system.bad_inputs.cases` writes docs/guide/bad-input.md.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of problem.

    Attributes:
        meaning: what it is.
        outcome: what becomes of the item: quarantined, noted, or all of the ingest fails.
        advice: what may be done about what is only noted; errors bring their own remedy.
    """

    meaning: str
    outcome: str = "quarantined"
    advice: str = ""


KINDS: dict[str, Kind] = {
    # found by name
    "no-folder": Kind("the source folder is missing", "fails"),
    "no-images": Kind("no image matches the pattern", "fails"),
    "no-layout": Kind("the layout is unknown", "fails"),
    "no-list": Kind("the list of items is missing, unreadable or lacks a column", "fails"),
    "bad-pattern": Kind("a pattern has a placeholder that does not exist", "fails"),
    "all-bad": Kind("more items are unusable than data.max_quarantined allows", "fails"),
    "missing-mask": Kind("an image has no mask"),
    "mask-without-image": Kind("a mask has no image", "noted", "add the image, or remove the mask"),
    "same-id": Kind("two images give the same id"),
    "unknown-format": Kind("the ending is none that can be read"),
    "archive": Kind("an archive lies where an image or mask is expected"),
    "outside": Kind("a path or symbolic link leaves the source folder"),
    "bad-name": Kind("a name holds a newline or another control character"),
    "unknown-split": Kind("the data set's own split has a name that data.splits does not translate"),
    # found by reading
    "empty-file": Kind("the file has no bytes"),
    "unreadable": Kind("the file is damaged, truncated or not what its ending says"),
    "no-permission": Kind("the file may not be read"),
    "changed": Kind("the file was changed while it was read"),
    "too-large": Kind("the header declares an absurd size, or the file unpacks to one (decompression bomb)"),
    "slow": Kind("reading took longer than any sound file takes"),
    "crashed": Kind("the reader crashed or ran out of memory on it"),
    "jpeg-mask": Kind("a mask is a JPEG, which has lost its exact values"),
    "size-mismatch": Kind("image and mask differ in size or number of planes"),
    "crs-mismatch": Kind("image and mask differ in coordinate system"),
    "transform-mismatch": Kind("image and mask differ in affine transform"),
    "spacing-mismatch": Kind("volume and mask differ in voxel spacing"),
    "affine-mismatch": Kind("volume and mask differ in position or orientation"),
    "label-values": Kind("a mask has values outside the declared classes (0/255 masks among them)"),
    "label-colors": Kind("a mask has colours that are not in the table"),
    "label-bands": Kind("a mask has bands that differ where index values are expected"),
    "label-fractions": Kind("a mask has fractions"),
    "swapped": Kind("image and mask are swapped"),
    "same-file": Kind("image and mask are the same file, or have the same content"),
    "all-nodata": Kind("no pixel of the image is valid: all nodata, transparent or NaN"),
    "constant": Kind("every pixel of the image has the same value"),
    "constant-band": Kind(
        "one band of the image has a single value",
        "noted",
        "leave the band out with data.bands, or export it again",
    ),
    "nan-pixels": Kind(
        "some pixels are NaN or infinite; they count as nodata", "noted", "nothing, if there is no data there"
    ),
    "all-ignored": Kind("the mask leaves nothing to train on or to score"),
    "empty-mask": Kind(
        "the mask holds background alone", "noted", "nothing, if there is nothing to see there"
    ),
    "one-class": Kind(
        "the mask holds a single foreground class and nothing else",
        "noted",
        "nothing, if it is so; else check data.label_values",
    ),
    "polygons-unreadable": Kind("the file of polygons or annotations cannot be read or lacks what it needs"),
    "polygons-outside": Kind(
        "no polygon of the file, or part of some, lies within the image",
        "noted",
        "check that polygons and image belong together, and their coordinate systems",
    ),
    "polygons-invalid": Kind(
        "polygons that cross themselves or are empty were mended or left out",
        "noted",
        "mend them in the program that drew them",
    ),
    "polygons-no-crs": Kind("polygons without a coordinate system for an image that has one, or the reverse"),
    "unknown-category": Kind("a category or property value is not in data.label_values"),
    "bad-run-length": Kind("a run-length mask does not fit its image"),
    "overlapping-segments": Kind(
        "segments of a DICOM segmentation overlap; the last one counts",
        "noted",
        "export segments that do not overlap",
    ),
    "not-annotated": Kind("the annotations do not name this image"),
    "bad-affine": Kind("a volume's voxel spacing or affine is zero, singular, not a number or not known"),
    "mixed-series": Kind("a folder holds slices of several DICOM series"),
    "missing-slice": Kind("slices of a DICOM series are missing or doubled"),
    "not-3d": Kind("a volume has more than three dimensions, or a colour type that is not supported"),
    "unusable": Kind("anything else that keeps a file from being used"),
    # found by comparing items
    "band-count": Kind("the number of bands differs from the other images'"),
    "band-missing": Kind("data.bands asks for a band that the image does not have"),
    "other-dtype": Kind("the data type differs from the other images'"),
    "mixed-crs": Kind(
        "coordinate systems differ between images", "noted", "nothing, or reproject to one coordinate system"
    ),
    "duplicate": Kind(
        "the same picture as another item's; both go into one split", "noted", "remove one of them"
    ),
    "near-duplicate": Kind(
        "nearly the same picture as another item's; both go into one split",
        "noted",
        "nothing, or remove one of them",
    ),
    "same-place": Kind(
        "the same place as another item's, perhaps on another date; both go into one split",
        "noted",
        "nothing",
    ),
    "relabelled": Kind("the data have this image already, with another mask"),
    "set-aside": Kind(
        "it links items that already are in different splits, so it is left out",
        "noted",
        "give the split by hand in split.given, or start a new registry under another data.name",
    ),
}


def table(examples: dict[str, tuple[str, str]] | None = None) -> str:
    """KINDS as Markdown: kind, meaning, outcome, example and remedy.

    Args:
        examples: kind -> error text or note, and remedy, as they were seen.
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
