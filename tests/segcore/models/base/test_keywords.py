"""Wrong keywords of networks are named with a remedy that works."""

from typing import Any

import pytest
import torch

from segcore.errors import ModelError
from segcore.models.base.factory import build_model, defaults, fitted, names
from segcore.models.base.object_sizes import ObjectSizes

COUNT = "a whole number from 1 to 4096"
LIST = "a list of numbers from 1 to 4096"
SIDES = f"{LIST}, each larger than the one before, or auto"
RATIOS = "a list of numbers from 0.05 to 20, or auto"
WRONG: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("mask_rcnn", {"width": 0}, f"mask_rcnn: width is 0.*{COUNT}", {"width": 8}),
    ("mask_rcnn", {"width": True}, f"width is True.*{COUNT}", {"width": 1}),
    ("mask_rcnn", {"width": "auto"}, f"width is 'auto'.*{COUNT}", {"width": 8}),
    ("mask_rcnn", {"finest": 3}, "finest 3 is unknown.*4, 8, auto", {"finest": "auto"}),
    ("mask_rcnn", {"finest": 8.0}, "finest 8.0 is unknown.*4, 8, auto", {"finest": 8}),
    ("mask_rcnn", {"anchors": 32}, f"anchors is 32.*{SIDES}", {"anchors": [32]}),
    ("mask_rcnn", {"anchors": [16, 8]}, f"anchors is .16, 8.*{SIDES}", {"anchors": [8, 16]}),
    ("mask_rcnn", {"anchors": [1e-300]}, f"anchors is .1e-300.*{SIDES}", {"anchors": [1]}),
    ("mask_rcnn", {"ratios": [1e-300]}, f"ratios is .1e-300.*{RATIOS}", {"ratios": [0.05]}),
    (
        "mask_rcnn",
        {"anchors": [8, 16, 32, 64, 128], "finest": 8},
        "has 5 values.*at most 4",
        {"anchors": "auto"},
    ),
    ("mask_rcnn", {"ratios": "wide"}, f"ratios is 'wide'.*{RATIOS}", {"ratios": [0.5, 1]}),
    ("mask_rcnn", {"detections": 0}, f"detections is 0.*{COUNT}, or auto", {"detections": "auto"}),
    ("yolact", {"width": 1.5}, f"yolact: width is 1.5.*{COUNT}", {"width": 8}),
    ("yolact", {"finest": 8.0}, "finest 8.0 is unknown.*4, 8, auto", {"finest": 8}),
    ("yolact", {"anchors": [16, 0]}, f"anchors is .16, 0.*{SIDES}", {"anchors": [16]}),
    ("yolact", {"anchors": [16, 16]}, f"anchors is .16, 16.*{SIDES}", {"anchors": [16, 17]}),
    (
        "yolact",
        {"anchors": [1, 2, 3, 4, 5, 6]},
        "anchors has 6 values.*at most 5",
        {"anchors": [1, 2, 3, 4, 5]},
    ),
    ("yolact", {"ratios": [1, 21]}, f"ratios is .1, 21.*{RATIOS}", {"ratios": [1, 20]}),
    ("yolact", {"prototypes": 0}, f"prototypes is 0.*{COUNT}", {"prototypes": 1}),
    ("yolact", {"candidates": "all"}, f"candidates is 'all'.*{COUNT}, or auto", {"candidates": "auto"}),
    ("yolact", {"mask_iou": "perhaps"}, "mask_iou is 'perhaps'.*true or false", {"mask_iou": True}),
    ("yolact", {"mask_iou": 1}, "mask_iou is 1.*true or false", {"mask_iou": True}),
    ("yolact", {"mask_iou": 0}, "mask_iou is 0.*true or false", {"mask_iou": False}),
    ("solo", {"width": -8}, "solo: width is -8.*from 2 to 4096", {"width": 2}),
    ("solo", {"cells": 8}, "cells is 8.*a list of numbers from 4 to 1024, each larger", {"cells": [8]}),
    ("solo", {"cells": [8, 24]}, "cells .8, 24. are impossible.*powers of two", {"cells": [8, 16]}),
    ("solo", {"cells": [128]}, "cells .128. are impossible.*the first from 4 to 64", {"cells": [64]}),
    ("solo", {"ranges": [[1, 5000]], "cells": [8]}, "ranges is .*up to 4096", {"ranges": [[1, 4096]]}),
    ("solo", {"ranges": [[9, 3]]}, "ranges is .*pairs of a smallest and a largest", {"ranges": "auto"}),
    ("solo", {"cells": [8, 16], "ranges": [[1, 9]]}, "do not fit 2 levels", {"ranges": [[1, 9], [4, 99]]}),
    ("solo", {"threshold": 2}, "threshold is 2.*from 0 to 1", {"threshold": 1}),
    ("solo", {"min_area": -1}, "min_area is -1.*from 0 to 4096", {"min_area": 0}),
    ("solo", {"variant": "v3"}, "variant 'v3' is unknown.*v2, v1", {"variant": "v1"}),
    ("solo", {"variant": ["v1"], "width": 128}, "variant .'v1'. is unknown.*v2, v1", {"variant": "v1"}),
    ("solo", {"widht": 8}, "no keyword 'widht'.*width", {"width": 8}),
]
WHOLE_LIST = "a list of whole numbers from 1 to 4096"
SWITCH = "true or false"
WRONG_SEMANTIC: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("unet", {"decoder_channels": 32}, f"is 32.*{WHOLE_LIST}", {"decoder_channels": [8, 8, 8, 8]}),
    ("unet", {"decoder_channels": "abcd"}, f"is 'abcd'.*{WHOLE_LIST}", {"decoder_channels": None}),
    ("unet", {"decoder_channels": [-1, 2, 3, 4]}, WHOLE_LIST, {"decoder_channels": [1, 2, 3, 4]}),
    ("unet", {"decoder_channels": [8.5, 8, 8, 8]}, WHOLE_LIST, {"decoder_channels": [8, 8, 8, 8]}),
    ("unet", {"decoder_channels": [True, 8, 8, 8]}, WHOLE_LIST, {"decoder_channels": [8, 8, 8, 8]}),
    ("unet", {"width": 0, "encoder": "plain"}, f"width is 0.*{COUNT}", {"width": 1}),
    (
        "unet",
        {"full_resolution": "maybe"},
        f"full_resolution is 'maybe'.*{SWITCH}",
        {"full_resolution": True},
    ),
    ("unet", {"deep_supervision": 1}, f"deep_supervision is 1.*{SWITCH}", {"deep_supervision": True}),
    ("unet", {"score_gain": True}, "score_gain is True.*above 0, at most 100", {"score_gain": 100}),
    ("deeplab", {"aspp_channels": -4}, f"aspp_channels is -4.*{COUNT}", {"aspp_channels": 1}),
    ("deeplab", {"aspp_channels": "a"}, f"aspp_channels is 'a'.*{COUNT}", {"aspp_channels": 8}),
    ("deeplab", {"aspp_channels": 0}, f"aspp_channels is 0.*{COUNT}", {"aspp_channels": 8}),
    ("deeplab", {"aspp_channels": -1, "version": "v2"}, "from 0 to 4096", {"aspp_channels": 0}),
    ("deeplab", {"dropout": 2}, "dropout is 2.*a number from 0 to 1", {"dropout": 1}),
    ("deeplab", {"dropout": -1}, "dropout is -1.*a number from 0 to 1", {"dropout": 0}),
    ("deeplab", {"atrous_rates": 12}, f"atrous_rates is 12.*{WHOLE_LIST}", {"atrous_rates": [12]}),
    ("deeplab", {"atrous_rates": [0]}, WHOLE_LIST, {"atrous_rates": [1]}),
    ("deeplab", {"atrous_rates": ["a"]}, WHOLE_LIST, {"atrous_rates": [1, 2]}),
    ("deeplab", {"atrous_rates": []}, WHOLE_LIST, {"atrous_rates": None}),
    ("deeplab", {"separable": "x", "version": "v1"}, f"separable is 'x'.*{SWITCH}", {"separable": False}),
    ("deeplab", {"separable": True, "version": "v1"}, "no separable convolutions", {"separable": None}),
    ("fcn", {"dropout": "half"}, "dropout is 'half'.*a number from 0 to 1", {"dropout": 0.5}),
    ("fcn", {"fc_channels": -1}, "fc_channels is -1.*from 0 to 4096", {"fc_channels": 0}),
]
JUNK: list[Any] = [
    *("junk", "", True, False, -1, 0, 1, 0.5, 10**9, float("nan"), float("inf"), None),
    *([], [0], ["a"], [None], [1.5] * 4, [[1]], [[3, 1]], {}, {"a": 1}),
]


@pytest.mark.parametrize(("name", "wrong", "text", "mended"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_keyword_is_named_and_its_remedy_works(
    name: str, wrong: dict[str, Any], text: str, mended: dict[str, Any]
) -> None:
    small: dict[str, Any] = {"encoder": "resnet18", "width": 8}
    with pytest.raises(ModelError, match=f"(?s){text}"):
        build_model(name, 3, 2, **{**small, **wrong})
    right = {key: value for key, value in {**wrong, **mended}.items() if key != "widht"}
    build_model(name, 3, 2, **{**small, **right})


@pytest.mark.parametrize("name", ["mask_rcnn", "yolact", "solo"])
@pytest.mark.parametrize("width", [2, 25, 100])
def test_every_width_builds(name: str, width: int) -> None:
    build_model(name, 3, 2, encoder="resnet18", width=width)


@pytest.mark.parametrize("name", ["mask_rcnn", "yolact", "solo"])
def test_the_encoder_of_u_net_alone_is_named_as_such(name: str) -> None:
    with pytest.raises(ModelError, match=r"(?s)U-Net alone.*train\.common\.encoder.*mobilenet_v2, resnet18"):
        build_model(name, 3, 2, encoder="plain", width=8)


@pytest.mark.parametrize("name", ["mask_rcnn", "yolact"])
@pytest.mark.parametrize("ratios", [(0.001, 0.004, 0.01), (50.0, 80.0, 200.0)])
def test_automatic_ratios_of_very_long_objects_are_within_the_limits(
    name: str, ratios: tuple[float, ...]
) -> None:
    found = fitted(name, {}, ObjectSizes(ratios=ratios))
    assert fitted(name, found, ObjectSizes()) == found


@pytest.mark.parametrize(
    ("name", "wrong", "text", "mended"), WRONG_SEMANTIC, ids=lambda value: str(value)[:40]
)
def test_so_is_one_of_a_semantic_network(
    name: str, wrong: dict[str, Any], text: str, mended: dict[str, Any]
) -> None:
    small: dict[str, Any] = {"encoder": "resnet18"}
    with pytest.raises(ModelError, match=f"(?s){text}") as caught:
        build_model(name, 3, 2, **{**small, **wrong})
    assert caught.value.key in wrong
    build_model(name, 3, 2, **{**small, **wrong, **mended})


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in names() for key in defaults(name)])
def test_no_value_of_any_keyword_ends_in_a_traceback(name: str, key: str) -> None:
    refused: dict[str, str | None] = {}
    for encoder in ("resnet18", "plain") if name == "unet" else ("resnet18",):
        for value in JUNK:
            try:
                with torch.device("meta"):
                    build_model(name, 3, 2, **{"encoder": encoder, key: value})
            except ModelError as error:
                refused[f"{encoder} {value}"] = error.key
    assert set(refused.values()) == {key}, refused
