"""Bundles with odd content are refused with their path, and before memory is allocated for what they declare."""

import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from segcore.errors import ModelError
from segcore.models.base.bundle import load_bundle, load_description, read_bundle, save_bundle
from segcore.models.base.factory import build_model
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from tests.support.bundles import FACTS, make_bundle, rewrite

MILLION, BILLION = 10**6, 10**9


@contextmanager
def limited_memory(megabytes: int) -> Iterator[None]:
    """Within it, this process can allocate no more than this in addition; also not without touching it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Import torchvision and create the threads of torch, which need address space."""
    build_model("fcn", 3, 2)


@pytest.fixture
def folder(tmp_path):
    return make_bundle(tmp_path / "b", input={"dtype": "uint8"}, seed_of_training=0)


def refused(folder: Path, message: str, predict: bool = False) -> None:
    start = time.monotonic()
    with limited_memory(200), pytest.raises(ModelError, match=message) as caught:
        Predictor(folder, Predict(tile=64, overlap=16)) if predict else load_bundle(folder)
    assert str(folder) in caught.value.what and caught.value.remedy and len(caught.value.what) < 900
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1, 2]",
        b"null",
        b'"text"',
        b"\xff\xfe{}",
        b"[" * 10**5,
        b'{"format": 2, "a": ' + b'{"a":' * 10**5,
        b'{"format": 2, "format": 2}',
        b'{"format": 2, "weights_sha256": NaN}',
        b'{"format": 2, "weights_sha256": 1e999}',
        b'{"format": 2, "seed": ' + b"9" * 5000 + b"}",
        b'{"format": [2]}',
        b'{"format": true}',
        b'{"format": 3}',
        b'{"format": 2, "weights_sha256": "' + b"0" * 2**20 + b'"}',
        b"\0" * 5000,
    ],
    ids=range(16),
)
def test_what_is_no_description_is_refused(folder, content):
    (folder / "model.json").write_bytes(content)
    refused(folder, r"model\.json: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": BILLION},
        {"num_classes": 0},
        {"num_classes": -3},
        {"num_classes": "3"},
        {"num_classes": 3.0},
        {"num_classes": True},
        {"num_classes": 4, "classes": list("abcd"), "colors": [[0, 0, 0]] * 4},
        {"classes": ["a", "b"]},
        {"classes": "abc"},
        {"classes": [1, 2, 3]},
        {"colors": [[1, 2, 3]]},
        {"colors": [[1, 2, 300]] * 3},
        {"colors": [[1, 2]] * 3},
        {"foreground": [7]},
        {"in_channels": BILLION},
        {"in_channels": BILLION, "normalization": {"mean": [], "std": []}, "range": {"low": [], "high": []}},
        {"in_channels": 4},
        {"in_channels": None},
        {"normalization": {"mean": [1.0] * 3, "std": [0] * 3}},
        {"normalization": {"mean": [1.0] * 3, "std": [-1.0] * 3}},
        {"normalization": [1, 2]},
        {"architecture": "../../x"},
        {"architecture": "_base"},
        {"architecture": "base"},
        {"architecture": ["unet"]},
        {"architecture": "fcn"},
        {"settings": []},
        {"settings": {}},
        {"weights_sha256": "0"},
        {"weights_sha256": 5},
        {"tile": "x"},
        {"tile": 0},
        {"tile": 1},
        {"classes": ["a", "b", "\ud800"]},
        {"tile": BILLION},
        {"parameters": None},
        {"parameters": {"precision": "fp7"}},
        {"input": None},
        {"files": {"../x": "0" * 64}},
        {"title": 5},
        {"seed": "0"},
    ],
    ids=json.dumps,
)
def test_entries_of_a_wrong_type_or_value_are_refused(folder, changes):
    """Also those that describe another network than that of the weights."""

    def change(description):
        for name in ("normalization", "range", "classes", "colors", "foreground"):
            if any(size in changes for size in ("in_channels", "num_classes")):
                description.pop(name, None)
        description.update(changes)

    rewrite(folder, change)
    refused(folder, r"model\.json: ")


@pytest.mark.parametrize(
    "settings",
    [
        {"decoder_channels": [MILLION] * 4},
        {"decoder_channels": [2] * 100_000},
        {"decoder_channels": "abcd"},
        {"width": MILLION},
        {"width": 10**30},
        {"width": -4},
        {"width": 0},
        {"width": 8},
        {"width": 4.5},
        {"width": None},
        {"encoder": "resnet101"},
        {"encoder": ["plain"]},
        {"encoder": {}},
        {"magnify": MILLION},
        {"magnify": -1},
        {"magnify": 0},
        {"magnify": "2"},
        {"evil": 1},
        {"name": "fcn"},
        {"in_channels": 3},
        {"weights": "file:/etc/passwd", "encoder": "vgg16"},
    ],
    ids=str,
)
def test_settings_of_another_network_are_refused(folder, settings):
    rewrite(folder, lambda d: d["settings"].update(settings))
    refused(folder, r"model\.json: ")


def test_settings_that_layers_are_made_in_loops_over_are_limited_by_the_weights(tmp_path):
    model = build_model("deeplab", 3, 2)
    (tmp_path / "b").mkdir()
    save_bundle(tmp_path / "b", model, "deeplab", {})
    rewrite(tmp_path / "b", lambda d: d["settings"].update(atrous_rates=[1] * 100_000))
    refused(tmp_path / "b", "100000 values")
    model = build_model("fcn", 3, 2)
    (tmp_path / "c").mkdir()
    save_bundle(tmp_path / "c", model, "fcn", {})
    rewrite(tmp_path / "c", lambda d: d.update(num_classes=254))
    refused(tmp_path / "c", "instead of")


@pytest.mark.parametrize("entry", ["classes", "colors"])
def test_a_prediction_names_the_entry_that_it_lacks(folder, entry):
    rewrite(folder, lambda d: d.pop(entry))
    refused(folder, f"lacks {entry}", predict=True)


@pytest.mark.parametrize(
    "given",
    [{"neighbours": 99}, {"neighbours": 4}, {"bands": "x"}, {"scale": [5, 1]}, {"max_pixels": -1}],
    ids=str,
)
def test_a_prediction_names_the_input_setting_that_is_wrong(folder, given):
    rewrite(folder, lambda d: d["input"].update(given))
    refused(folder, "input", predict=True)


def _header(folder: Path, change) -> None:
    """Change the header of the weights, and describe the file that results."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(change(header) or header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["score.bias"].update(shape=[BILLION]),
        lambda h: h["score.bias"].update(shape=[-3]),
        lambda h: h["score.bias"].update(shape="3"),
        lambda h: h["score.bias"].update(shape=[2**62, 2**62]),
        lambda h: h["score.bias"].update(data_offsets=[0, 2**62]),
        lambda h: h["score.bias"].update(data_offsets=[0]),
        lambda h: h["score.bias"].update(data_offsets=h["mean"]["data_offsets"]),
        lambda h: h["score.bias"].update(dtype="I32"),
        lambda h: h["score.bias"].update(dtype="X"),
        lambda h: h.update({"score.bias": 5}),
        lambda h: h.pop("score.bias") and None,
        lambda h: h.update({"more": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        lambda h: [1],
    ],
    ids=range(13),
)
def test_a_damaged_header_of_the_weights_is_refused(folder, change):
    _header(folder, change)
    refused(folder, r"model\.safetensors|does not describe")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 7, b"\xff" * 100, (2**40).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}"],
    ids=range(5),
)
def test_a_file_that_holds_no_weights_is_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, r"model\.safetensors: is not the file|the weights have")


def test_a_huge_file_is_not_read(folder):
    os.truncate(folder / "model.safetensors", 2**40)
    refused(
        folder, r"model\.safetensors: is not the file that model.json describes \(it has 1099511627776 bytes"
    )


def test_truncated_and_missing_weights_are_refused(folder):
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    refused(folder, r"model\.safetensors: is not the file that model.json describes")
    path.unlink()
    refused(folder, "it is missing")
    path.mkdir()
    refused(folder, "it is missing")
    (folder / "model.json").unlink()
    os.mkfifo(folder / "model.json")
    refused(folder, "is not a file")


def test_every_altered_byte_of_model_json_is_found(folder):
    path = folder / "model.json"
    content = path.read_bytes()
    for place in range(len(content)):
        altered = bytearray(content)
        altered[place] ^= 1
        path.write_bytes(altered)
        with pytest.raises(ModelError, match=r"model\.json: "):
            load_description(folder)
    path.write_bytes(content)
    load_description(folder)


def test_every_altered_byte_of_the_weights_is_found(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for place in [*range(0, 400, 7), len(content) // 2, len(content) - 1]:
        altered = bytearray(content)
        altered[place] ^= 1
        path.write_bytes(altered)
        with pytest.raises(ModelError):
            load_bundle(folder)


def test_a_bundle_of_an_older_version_without_a_hash_of_its_description_is_accepted(folder):
    expected = load_bundle(folder).state_dict()
    rewrite(folder, lambda d: d.pop("files"))
    found = load_bundle(folder).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_a_bundle_that_is_exchanged_between_the_two_files_is_read_again(folder, tmp_path, monkeypatch):
    from segcore.models.base import bundle

    make_bundle(tmp_path / "other", seed=1, title="Other")
    real, calls = bundle._described, []

    def exchange(*arguments):
        result = real(*arguments)
        if not calls:
            folder.rename(tmp_path / "old")
            (tmp_path / "other").rename(folder)
        calls.append(1)
        return result

    monkeypatch.setattr(bundle, "_described", exchange)
    read = read_bundle(folder)
    assert len(calls) == 2 and read.description["title"] == "Other"
    assert torch.equal(read.model().score.bias, load_bundle(folder).score.bias)


def test_the_random_state_after_a_load_is_that_after_building_the_network_once(folder):
    torch.manual_seed(3)
    build_model("unet", 3, 3, encoder="plain", width=4)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_bundle(folder)
    assert torch.equal(torch.rand(4), expected)


def test_further_files_are_covered_by_a_hash(tmp_path):
    from segcore.models.base.bundle import verified, verified_file

    (tmp_path / "history.csv").write_text("step,val_iou\n1,0.5\n")
    save_bundle(tmp_path, build_model("unet", 3, 3, encoder="plain", width=4), "unet", FACTS)
    verified(tmp_path)
    assert verified_file(tmp_path, "history.csv").startswith(b"step")
    (tmp_path / "history.csv").write_text("step,val_iou\n1,0.9\n")
    for check in (verified, lambda folder: verified_file(folder, "history.csv")):
        with pytest.raises(ModelError, match=r"history\.csv: is not the file"):
            check(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("score.weight", float("nan")), ("score.bias", float("inf")), ("std", 0.0)]
)
def test_weights_that_are_no_numbers_are_refused_for_a_prediction(tmp_path, name, value):
    """Otherwise every pixel would be the first class."""
    model = build_model("unet", 3, 3, encoder="plain", width=4).eval()
    model.state_dict()[name].view(-1)[0] = value
    (tmp_path / "b").mkdir()
    save_bundle(tmp_path / "b", model, "unet", {**FACTS, "normalization": None, "range": None})
    refused(tmp_path / "b", f"{name} has values", predict=True)
