"""Cityscapes: leftImg8bit/<split>/<city>/*_leftImg8bit.png with gtFine/<split>/<city>/*_gtFine_labelIds.png.

The group is the city unless data.group is set. The patterns of data.group, data.masks (for labelTrainIds or gtCoarse)
and data.objects (for instanceIds) may use {split}, {city} and {frame}. Images without ground truth, such as those of
test, are left out.
"""

from pathlib import Path, PurePosixPath

from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._builder import Builder, is_set
from segcore.io.layouts._files import Folder
from segcore.io.layouts._item import Item
from segcore.io.layouts._unique_ids import with_unique_ids
from segcore.io.layouts.pairs import no_images
from segcore.params.data import Data

IMAGES = "leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png"
MASKS = "gtFine/{split}/{city}/{frame}_gtFine_labelIds.png"
WITHOUT_TRUTH = ("test", "train_extra")


def find(data: Data, folder: Path) -> list[Item]:
    """Items with the city as group and the folder's split; val becomes validation.

    Raises:
        DataError: no image (kind "no-images"), or a pattern has an unknown placeholder (kind "bad-pattern").
    """
    images = patterns.images_pattern(IMAGES)
    masks = data.mask_patterns[0] if is_set(data, "masks") else MASKS
    group = data.group if is_set(data, "group") else "{city}"
    patterns.check_placeholders("data.masks", masks, images)
    patterns.check_placeholders("data.group", group, images)
    patterns.check_placeholders("data.objects", data.objects or "", images)
    source = Folder(folder, data.links_to)
    items = []
    for match in source.find(images):
        build = Builder(data, source, match)
        path = PurePosixPath(patterns.text_of(patterns.fill("data.masks", masks, match, build.cell)))
        if match.words["split"] in WITHOUT_TRUTH and not source.exists(path):
            continue
        mask = build.file(path, "mask")
        split = build.split(match.words["split"], common_names=True)
        id_text, objects = patterns.safe_id(match.words["frame"]), build.objects()
        items.append(build.item(id_text, build.group(group), mask, split, objects=objects))
    if not items:
        raise no_images(IMAGES, folder, source)
    return with_unique_ids(items)
