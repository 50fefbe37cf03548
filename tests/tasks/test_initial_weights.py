"""A training may start from the champion of its architecture; a champion that does not fit is not used."""

import shutil

import pytest
import torch

from segcore.errors import ModelError
from segcore.models.base.bundle import load_bundle, read_bundle, save_bundle
from segcore.models.base.factory import build_model
from tasks.initial_weights import (
    TRANSFER,
    clear,
    initial_weights,
    load_initial_weights,
    place,
    place_transfer,
    with_fitted_keywords,
)
from tasks.project import START
from tests.support.tiny import params_for


def bundle(folder, architecture="unet", classes=("background", "square"), seed=1):
    torch.manual_seed(seed)
    model = build_model(architecture, 3, len(classes), encoder="mobilenet_v2", weights="none")
    folder.mkdir(parents=True)
    save_bundle(folder, model, architecture, {"classes": list(classes)})
    return folder


def fresh(seed=2):
    torch.manual_seed(seed)
    return build_model("unet", 3, 2, encoder="mobilenet_v2", weights="none")


@pytest.fixture
def p(tmp_path):
    return params_for(tmp_path)


def test_training_starts_from_a_fitting_bundle_with_its_own_number_of_steps(p, tmp_path):
    place(bundle(tmp_path / "champion"), 7, tmp_path)
    model = fresh()
    assert load_initial_weights(p, "unet", model, tmp_path).steps == 7
    loaded = load_bundle(tmp_path / "champion").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_the_warm_up_is_shortened_with_fewer_steps(p, tmp_path):
    lengths = {"steps": 60, "warmup_steps": 10}
    p = p.model_copy(update={"train": {**p.train, "common": {**p.train["common"], **lengths}}})
    champion = bundle(tmp_path / "champion")
    for steps, expected in ((15, (15, 2)), (None, (60, 10)), (600, (600, 10))):
        place(champion, steps, tmp_path)
        settings = load_initial_weights(p, "unet", fresh(), tmp_path)
        assert (settings.steps, settings.warmup_steps) == expected


def test_other_architectures_and_other_classes_start_from_new_weights(p, tmp_path, capsys):
    usual = p.for_architecture("unet").steps
    model = fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert load_initial_weights(p, "unet", model, tmp_path).steps == usual
    place(bundle(tmp_path / "three", classes=("background", "square", "round")), root=tmp_path)
    assert load_initial_weights(p, "unet", model, tmp_path).steps == usual
    assert "other classes" in capsys.readouterr().out
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_instance_network_keeps_the_anchors_and_limits_of_its_champion(tmp_path):
    keywords = {"encoder": "mobilenet_v2", "width": 8, "anchors": [11, 22], "detections": 77}
    folder = tmp_path / "champion"
    folder.mkdir()
    save_bundle(
        folder, build_model("mask_rcnn", 3, 2, **keywords), "mask_rcnn", {"classes": ["background", "square"]}
    )

    def kept(**model):
        p = params_for(
            tmp_path,
            architectures=["mask_rcnn"],
            data={"instances": True},
            train={"mask_rcnn": {"model": model}},
        )
        return with_fitted_keywords(p.for_architecture("mask_rcnn"), "mask_rcnn", tmp_path).model

    assert kept(width=8) == {"width": 8}, "there is no champion yet"
    place(folder, root=tmp_path)
    assert kept(width=8) == {key: read_bundle(folder).description["settings"][key] for key in kept(width=8)}
    assert {"width", "anchors", "detections", "proposals"} <= set(kept(width=8))
    assert kept(width=8)["anchors"] == [11, 22] and kept(width=8)["detections"] == 77
    assert kept(width=8, detections=5)["detections"] == 5 and "anchors" not in kept(width=8, detections=5)
    assert kept(width=16) == {"width": 16}, "another network than the champion's"
    (tmp_path / START / "mask_rcnn" / TRANSFER).write_text("{}")
    assert kept(width=8) == {"width": 8}, "a model of other data"


def test_what_a_training_starts_from_is_named_for_the_comparison(p, tmp_path):
    assert initial_weights(p, "unet", fresh(), tmp_path) is None
    champion = bundle(tmp_path / "champion")
    short = read_bundle(champion).weights_sha256[:8]
    place(champion, root=tmp_path)
    assert initial_weights(p, "unet", fresh(), tmp_path) == f"of the champion ({short})"
    place(bundle(tmp_path / "three", classes=("background", "square", "round")), root=tmp_path)
    assert initial_weights(p, "unet", fresh(), tmp_path) is None, "it does not fit"
    place_transfer(read_bundle(champion), tmp_path)
    assert initial_weights(p, "unet", fresh(), tmp_path) == f"of other data ({short})"


def test_the_start_folder_holds_only_the_champion_and_is_emptied_without_one(tmp_path):
    (tmp_path / START).mkdir()
    (tmp_path / START / "README.md").write_text("kept")
    place(bundle(tmp_path / "a", "unet"), root=tmp_path)
    first = (tmp_path / START / "unet" / "model.safetensors").stat().st_mtime_ns
    place(tmp_path / "a", root=tmp_path)
    assert (tmp_path / START / "unet" / "model.safetensors").stat().st_mtime_ns == first
    place(bundle(tmp_path / "b", "fcn"), root=tmp_path)
    assert sorted(f.name for f in (tmp_path / START).iterdir()) == ["README.md", "fcn"]
    place(None, root=tmp_path)
    assert [f.name for f in (tmp_path / START).iterdir()] == ["README.md"]
    shutil.rmtree(tmp_path / START)
    place(None, root=tmp_path)


def test_a_model_of_other_data_transfers_weights_except_head_and_normalisation(p, tmp_path, capsys):
    other = bundle(tmp_path / "other", classes=("background", "square", "round"))
    place_transfer(read_bundle(other), tmp_path)
    model, kept = fresh(), fresh()
    kept.set_normalization([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    model.load_state_dict(kept.state_dict())
    assert load_initial_weights(p, "unet", model, tmp_path).steps == p.for_architecture("unet").steps
    loaded = load_bundle(other).state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("score") or name in ("mean", "std", "low", "high"):
            assert torch.equal(value, kept.state_dict()[name]), name
        else:
            assert torch.equal(value, loaded[name]), name
    assert "left out: score.weight, score.bias" in capsys.readouterr().out


def test_a_model_of_the_same_classes_transfers_its_head_too(p, tmp_path):
    place_transfer(read_bundle(bundle(tmp_path / "other")), tmp_path)
    model = fresh()
    load_initial_weights(p, "unet", model, tmp_path)
    assert torch.equal(model.score.weight, load_bundle(tmp_path / "other").score.weight)


def test_a_model_with_another_encoder_is_refused(p, tmp_path):
    torch.manual_seed(0)
    model = build_model("unet", 3, 2, encoder="plain", width=4)
    (tmp_path / "plain").mkdir()
    save_bundle(tmp_path / "plain", model, "unet", {"classes": ["background", "square"]})
    place_transfer(read_bundle(tmp_path / "plain"), tmp_path)
    with pytest.raises(ModelError, match="less than half of its encoder fits"):
        load_initial_weights(p, "unet", fresh(), tmp_path)


def test_placing_a_champion_keeps_models_of_other_data_and_clear_removes_only_them(p, tmp_path):
    place_transfer(read_bundle(bundle(tmp_path / "other")), tmp_path)
    place(None, root=tmp_path)
    assert (tmp_path / START / "unet" / TRANSFER).is_file()
    place(bundle(tmp_path / "fcn", architecture="fcn"), root=tmp_path)
    clear(tmp_path)
    assert sorted(path.name for path in (tmp_path / START).iterdir()) == ["fcn"]
