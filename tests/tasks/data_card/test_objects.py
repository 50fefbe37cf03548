"""Objects on the data card: figures of components, what a crop cuts, warnings, and data without objects."""

import html
import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from segcore.models.base.factory import build_model
from segcore.params import Params
from tasks.data_card import card, instance_advice
from tasks.data_card.objects import cut_share, output_stride
from tasks.ingest import Checked, write_card
from tests.support.fake_catalogue import card_data, card_row, catalogue, pack
from tests.support.tiny import values_for
from tests.tasks.data_card.test_card import NO_LINKS, _pictures, _sound


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder of packed items."""
    (tmp_path / "items").mkdir()
    return tmp_path / "items"


def numbered(name, store, numbers, classes=None):
    """Row and packed file of an item with these object numbers (D, H, W)."""
    labels = (numbers > 0).astype(np.uint8) if classes is None else classes
    pixels = np.random.default_rng(0).integers(20, 220, (*numbers.shape, 3), dtype=np.uint8)
    depth, height, width = numbers.shape
    packed = pack(store / f"{name}-n.safetensors", pixels, labels, None, numbers)
    row = card_row(name, store, depth=depth)
    objects = len(np.unique(numbers)) - 1
    return row | {"packed": packed.name, "height": height, "width": width, "objects": objects}


def page_of(rows, store, p=None, **data):
    target = store.parent / "data.html"
    card.write_card(catalogue(rows), NO_LINKS, [], card_data(**{"instances": True} | data), store, target, p)
    return html.unescape(target.read_text())


def touching():
    """Four squares of 5 x 5 pixels: two that touch, and two alone; all of class 1."""
    numbers = np.zeros((1, 20, 40), np.uint32)
    for number, (row, col) in enumerate([(2, 2), (2, 7), (12, 2), (12, 30)], start=7):
        numbers[0, row : row + 5, col : col + 5] = number
    return numbers


def test_the_page_has_the_figures_of_components_and_the_objects_that_they_merge(store):
    empty = np.zeros((1, 20, 40), np.uint32)
    page = page_of([numbered("full", store, touching()), numbered("empty", store, empty)], store)
    assert "4 objects in 2 images, median 2 and at most 4 per image; 1 image without objects." in page
    # three components, of which two are objects: F1 2 * 2 / 7, PQ the same, and a component of two
    assert page.count("57.1<small>%") == 2 and "−25.0<small>%" in page and "50.0<small>%" in page
    assert "2 objects share a component with another" in page
    assert "4 objects, 3 components; 2 merged" in page and "The 1 image in which" in page
    assert "no object" in page, "class 2 has none"
    # two items, each with and without its mask, and the merged objects
    assert _pictures(_sound(page)) == 5


def test_planes_of_a_volume_are_counted_one_by_one(store):
    numbers = np.concatenate([touching(), np.zeros((2, 20, 40), np.uint32)])
    page = page_of([numbered("volume", store, numbers)], store)
    assert "4 objects in 3 planes, median 0 and at most 4 per plane; 2 planes without objects." in page


def test_data_without_any_object_say_so(store):
    page = page_of([numbered("none", store, np.zeros((1, 20, 40), np.uint32))], store)
    assert "0 objects in 1 image; 1 image without objects." in page
    assert "most that components can reach" not in page
    _sound(page)


def test_objects_are_not_shown_without_the_setting(store):
    page = page_of([numbered("full", store, touching())], store, instances=False)
    assert 'id="objects"' not in page


def test_truth_of_components_is_said_to_favour_them(store):
    rows = [numbered("full", store, touching())]
    assert "favours methods whose objects are components" not in page_of(rows, store)
    assert "favours methods whose objects are components" in page_of(rows, store, instances="components")


def test_the_classes_have_figures_of_their_own(store):
    numbers = touching()
    classes = np.where(numbers == 10, 2, np.where(numbers > 0, 1, 0)).astype(np.uint8)
    page = page_of([numbered("two", store, numbers, classes)], store)
    # water: three objects in two components, one of them found; roof: perfect
    assert "F1 and PQ above are means over the classes." in page
    assert "<td>40.0 %</td>" in page and "<td>100.0 %</td>" in page and "70.0<small>%" in page


@pytest.mark.parametrize("crop", [4, 9, 16, 40])
def test_the_share_that_a_crop_cuts_is_that_of_all_crops(crop):
    rng = np.random.default_rng(crop)
    sizes = rng.integers(8, 24, (30, 2))
    boxes = []
    for height, width in sizes:
        row, col = rng.integers(0, height), rng.integers(0, width)
        boxes.append((row, col, rng.integers(1, height - row + 1), rng.integers(1, width - col + 1)))
    in_sight = whole = 0
    for (height, width), (row, col, tall, wide) in zip(sizes, boxes, strict=True):
        for top in range(max(height - crop, 0) + 1):
            for left in range(max(width - crop, 0) + 1):
                seen = (
                    min(row + tall, top + crop) - max(row, top),
                    min(col + wide, left + crop) - max(col, left),
                )
                in_sight += min(seen) > 0
                whole += seen == (tall, wide)
    objects = pd.DataFrame(boxes, columns=["row", "col", "height", "width"])
    assert cut_share(objects, sizes, crop) == pytest.approx(1 - whole / in_sight)


def params_of(store, **over):
    return Params.model_validate(values_for(store, **over))


def test_objects_smaller_than_the_stride_of_a_network_are_warned_of(store):
    rows = [numbered("full", store, touching())]
    page = page_of(rows, store, params_of(store))
    warning = (
        "half of the objects of water are at most 5 px long, less than the distance of the points that are "
    )
    assert f"{warning}scored by fcn (8 px). Set magnify: 2 in train.common." in page
    assert "objects in a training crop of 32 px are cut by its edge" in page
    assert warning not in page_of(rows, store, params_of(store, train={"common": {"magnify": 2}}))


def test_what_is_set_is_not_advised(store):
    rows = [numbered("full", store, touching())]
    network = "an instance network (architectures: mask_rcnn)"
    all_three = f"tell them apart. Try evaluate.objects: watershed, data.touching: true or {network}."
    assert all_three in page_of(rows, store) and all_three in page_of(rows, store, params_of(store))
    watershed = params_of(store, evaluate={"objects": "watershed"})
    assert f"tell them apart. Try data.touching: true or {network}." in page_of(rows, store, watershed)
    assert f"tell them apart. Try {network}." in page_of(rows, store, watershed, touching=True)
    objects = {"architectures": ["fcn", "solo"], "data": {"instances": True}}
    both = params_of(store, **objects, evaluate={"objects": "watershed"})
    assert "tell them apart.</p>" in page_of(rows, store, both, touching=True)


def test_the_limit_of_components_is_printed(store, capsys):
    def printed(name, numbers, **data):
        checked = Checked(catalogue([numbered(name, store, numbers)]), NO_LINKS, [], store)
        write_card(checked, card_data(**{"instances": True} | data), store.parent)
        return capsys.readouterr().out

    # two of three components are objects: F1 2 * 2 / 7 in the class with objects
    limit = "Connected components of a perfect mask have an F1 of 57.1 %"
    why = "50.0 % of the objects share one with another. Try evaluate.objects: watershed, "
    assert printed("full", touching()).startswith(f"{limit}; {why}")
    for setting in ("components", False):
        assert limit not in printed("full", touching(), instances=setting)
    assert "Connected" not in printed("empty", np.zeros((1, 20, 40), np.uint32))


def test_the_sizes_have_an_axis_and_the_pattern_of_numbers_is_shown(store):
    numbers = np.zeros((1, 60, 60), np.uint32)
    numbers[0, 0, 0], numbers[0, 2:42, 2:42] = 1, 2
    page = page_of([numbered("a", store, numbers)], store, instances=False, objects="ids/{stem}_id.tif")
    ticks = re.findall(r'<span style="left:([\d.]+)%">(\d+)</span>', page)
    assert ticks[0] == ("0.0", "1") and ticks[-1] == ("100.0", "40") and len(ticks) == 7
    assert "masks/{stem}.png; object numbers in ids/{stem}_id.tif" in page


def test_the_share_cut_by_blocks_of_a_scene_is_shown(store):
    rows = [numbered("full", store, np.kron(touching(), np.ones((1, 4, 4), np.uint32)))]
    scene = params_of(store, scene=True, split={"block": 40})
    # one of the four covers columns 28 to 47, the others none of two blocks
    assert "25 % of the objects of large scenes are cut by blocks" in page_of(rows, store, scene)


@pytest.mark.parametrize(
    ("architecture", "encoder", "model"),
    [
        ("unet", "resnet18", {}),
        ("unet", "plain", {"width": 4}),
        ("unet", "resnet18", {"full_resolution": True}),
        ("fcn", "resnet18", {}),
        ("fcn", "resnet18", {"variant": "16s"}),
        ("deeplab", "resnet18", {}),
        ("deeplab", "resnet18", {"version": "v3", "output_stride": 8}),
    ],
)
def test_the_stride_is_that_of_the_network(store, architecture, encoder, model):
    network = build_model(architecture, 3, 5, encoder=encoder, **model)
    sides = []

    def note(module, given, result):
        if isinstance(result, torch.Tensor) and result.ndim == 4 and result.shape[1] == 5:
            sides.append(result.shape[-1])

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        network.eval().segment(torch.zeros(1, 3, 64, 64))
    p = params_of(store, train={architecture: {"encoder": encoder, "model": model}})
    assert output_stride(architecture, p.for_architecture(architecture)) == 64 / max(sides)


@pytest.mark.parametrize("crop", [8, 16])
def test_the_most_objects_of_a_crop_are_counted_on_a_grid_of_crops(crop):
    rng = np.random.default_rng(crop)
    boxes = pd.DataFrame(rng.integers(0, 60, (80, 2)), columns=["row", "col"])
    boxes = boxes.assign(height=4, width=4, at=rng.integers(0, 2, 80))
    most = 0
    for at, top, left in product((0, 1), range(-crop, 64, crop // 2), range(-crop, 64, crop // 2)):
        rows, cols = boxes["row"] + 2 - top, boxes["col"] + 2 - left
        inside = (boxes["at"] == at) & (rows >= 0) & (rows < crop) & (cols >= 0) & (cols < crop)
        most = max(most, int(inside.sum()))
    assert instance_advice.most_in_crop(boxes, crop) == most > 1


def test_objects_of_one_size_share_a_cell_if_their_centres_do():
    boxes = pd.DataFrame(
        [(0, 0, 12, 12), (1, 1, 12, 12), (40, 40, 12, 12), (0, 0, 48, 48)],
        columns=["row", "col", "height", "width"],
    )
    # cells of 8 px for the first three, of 32 px for the last
    assert instance_advice.shared_cells(boxes.assign(at=0)) == 0.5
    assert instance_advice.shared_cells(boxes.assign(at=range(4))) == 0


def test_limits_below_the_densest_crop_and_small_overlaps_are_warned_of(store):
    numbers = np.zeros((1, 64, 64), np.uint32)
    for number in range(8):
        numbers[0, number * 8 : number * 8 + 6, 4:10] = number + 1
    numbers[0, 4:60, 30:50] = 99
    rows = [numbered("full", store, numbers)]
    settings = {"architectures": ["mask_rcnn"], "data": {"instances": True}, "prepare": {"window": 64}}
    settings |= {"train": {"common": {"crop": 64}, "mask_rcnn": {"model": {"detections": 3}}}}
    settings |= {"evaluate": {"tile": 64}, "predict": {"overlap": 8}}
    page = page_of(rows, store, params_of(store, **settings))
    assert "a crop of 64 px has up to 9 objects, more than detections: 3 of mask_rcnn allows." in page
    assert "Set detections: auto in train.mask_rcnn.model." in page
    large = math.ceil(pd.Series([6] * 8 + [56]).quantile(0.95))
    assert f"Set predict.tile: {2 * large}." in page
    settings["train"]["mask_rcnn"]["model"]["detections"] = 9
    # windows of instance networks overlap by themselves
    page = page_of(rows, store, params_of(store, **settings | {"evaluate": {"tile": 128}}))
    assert "Many objects" not in page and "Large objects" not in page
    # windows of SOLO are the crops, whatever predict has; those of U-Net overlap as set
    settings |= {"architectures": ["unet", "solo"], "evaluate": {"tile": 128}}
    page = page_of(rows, store, params_of(store, **settings))
    assert f"Set predict.overlap: {large}." in page
    assert (
        f"Windows of solo are as large as the training crops: train with a larger crop, {2 * large}," in page
    )
    settings["evaluate"] = {"tile": 64}
    page = page_of(rows, store, params_of(store, **settings))
    assert f"Set predict.tile: {2 * large} and predict.overlap: {large}." in page
