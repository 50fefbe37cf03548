"""Validation of instance networks: loss of all windows, PQ at the best score, and the score that is stored."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.models.base.description import parse, serialized
from segcore.objects.find import FindSettings
from segcore.training import validate_objects as module
from segcore.training.object_settings import choose_objects, text
from segcore.training.validate import tile_side, validate
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.discs import VALUES, make_discs
from tests.support.tiny import params_for
from tests.support.toy_instance import Toy
from tests.support.trainings import small


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """Prepared data of twelve images of numbered discs."""
    root = tmp_path_factory.mktemp("discs")
    p = params_for(make_discs(root / "source"), data=VALUES)
    ingest(p.data, root / "ingested")
    return PreparedData(prepare(p, root / "ingested", root / "prepared"))


def toy(bias=-1.2):
    """A network that finds the discs, which are brighter."""
    model = Toy()
    with torch.no_grad():
        model.encoder.weight.fill_(0.01 / 3)
        model.encoder.bias.fill_(bias)
    return model


def settings(**changes):
    return small(objects={"min_visible": 0.5, "min_area": 4}, **changes)


def brute_force(model, data):
    """PQ of the grid's best score by the tables of pixels, object by object."""
    regions = data.regions[data.regions["split"] == "validation"]
    best = 0.0
    for score in module.SCORES:
        iou = true_count = found_count = 0
        for region in regions.itertuples():
            patch = data.read_input(region.id, instances=True)
            image = torch.from_numpy(patch.image.astype(np.float32)).permute(2, 0, 1)[None]
            (found,) = model.predict(image)
            numbers = found.select(found.scores >= np.float32(score)).numbers()
            truths = [patch.instances == n for n in np.unique(patch.instances[patch.instances > 0])]
            masks = [numbers == n for n in range(1, int(numbers.max()) + 1)]
            true_count, found_count = true_count + len(truths), found_count + len(masks)
            for one in truths:
                for other in masks:
                    share = (one & other).sum() / (one | other).sum()
                    iou += share if share > 0.5 else 0
        best = max(best, 2 * iou / (true_count + found_count))
    return best


def test_pq_is_that_of_the_best_score_over_all_objects(discs):
    loss, quality = validate(toy(), discs, settings(), "fp32")
    assert np.isfinite(loss) and 0.2 < quality < 1
    assert quality == pytest.approx(brute_force(toy(), discs), abs=1e-9)


def test_the_loss_is_the_mean_over_the_weights_of_all_windows_with_cut_objects_ignored(discs):
    model = toy()
    loss, _ = validate(model, discs, settings(crop=16), "fp32")
    total = weight = ignored = 0
    for region in discs.regions[discs.regions["split"] == "validation"].itertuples():
        patch = discs.read_input(region.id, instances=True)
        area = discs.objects[discs.objects["item"] == region.item].set_index("id")["area"]
        # windows of 2 * crop
        for row in (0, 32):
            for col in (0, 32):
                part = (slice(row, row + 32), slice(col, col + 32))
                numbers, label = patch.instances[part].astype(np.int64), patch.label[part].copy()
                for n in np.unique(numbers[numbers > 0]):
                    inside = numbers == n
                    edges = inside[[0, -1]].any() or inside[:, [0, -1]].any()
                    if inside.sum() < 0.5 * area[n] or (edges and inside.sum() < 4):
                        label[inside] = IGNORE
                        ignored += 1
                valid = label != IGNORE
                logit = patch.image[part].astype(np.float64).sum(2) * 0.01 / 3 - 1.2
                target = (numbers > 0) & valid
                losses = np.logaddexp(0, logit) - target * logit
                total, weight = total + losses[valid].sum(), weight + valid.sum()
    assert ignored > 0 and loss == pytest.approx(total / weight, rel=1e-5)


def test_networks_that_depend_on_position_are_validated_in_windows_of_the_crop(discs, monkeypatch):
    assert tile_side(toy(), 32) == 64
    seen = set()
    original = Toy.forward

    def forward(self, images, valid=None):
        seen.add(tuple(images.shape[-2:]))
        return original(self, images, valid)

    monkeypatch.setattr(Toy, "forward", forward)
    monkeypatch.setattr(Toy, "is_position_dependent", True)
    assert tile_side(toy(), 32) == 32
    # larger than a region of 64 x 64
    for crop in (32, 80):
        validate(toy(), discs, settings(crop=crop), "fp32")
        assert seen == {(crop, crop)}
        seen.clear()


def test_loss_and_score_do_not_depend_on_the_number_of_processes(discs):
    class Half:
        """A process of two; each gathers the rows of both."""

        world, rows = 2, {}

        def __init__(self, rank):
            self.rank = rank

        def gathered(self, rows):
            self.rows[self.rank] = rows
            return [row for rank in sorted(self.rows) for row in self.rows[rank]]

    alone = validate(toy(), discs, settings(), "fp32")
    validate(toy(), discs, settings(), "fp32", Half(0))
    assert validate(toy(), discs, settings(), "fp32", Half(1)) == alone
    assert all(len(rows) > 0 for rows in Half.rows.values())


def test_quality_without_objects_is_1_and_with_false_ones_0():
    assert module.best_quality(np.zeros((0, 3)), 0) == 1
    assert module.best_quality(np.zeros((0, 3)), 4) == 0
    false = np.array([[0.97, 0, 0]])
    assert module.best_quality(false, 0) == 0
    # the score .95 leaves out a false one of .9
    assert module.best_quality(np.array([[0.9, 0, 0], [0.96, 1, 0.8]]), 1) == pytest.approx(0.8)


def test_the_score_of_an_instance_network_is_chosen_by_f1_and_fits_into_model_json(discs):
    entry = choose_objects(toy(), discs, 64, "fp32")
    assert set(entry) == {"truth", "touching", "classes", "side", "network"}
    chosen = entry["network"]
    assert set(chosen) == {"score", "f1", "precision", "recall", "count_bias", "counts"}
    assert entry["touching"] is False and 0.3 < chosen["f1"] < 1
    true, predicted = np.sum(chosen["counts"]["square"], axis=0)
    assert predicted / true - 1 == pytest.approx(chosen["count_bias"], abs=1e-6)
    assert text(entry).startswith(f"objects: network at score {chosen['score']:g}: F1 {chosen['f1']:.3f}, ")
    content = serialized(description(objects=entry))
    stored = parse(content, "model.json")
    # whatever a user of semantic networks asks for
    for method in ("components", "watershed", "network"):
        assert FindSettings.of(stored, method) == FindSettings("network", chosen["score"])


def test_where_an_instance_network_finds_nothing_its_score_is_one_half(discs):
    entry = choose_objects(toy(bias=-9), discs, 64, "fp32")
    assert entry["network"]["score"] == 0.5 and entry["network"]["f1"] == 0
    assert "no true object is found by network" in text(entry)


def description(**entries):
    fixed = {
        "kind": "instance",
        "weights_sha256": "0" * 64,
        "num_classes": 2,
        "settings": {"foreground": [1]},
    }
    return {**fixed, **entries}


NETWORK = {"score": 0.4, "counts": {"a": [[1, 1]]}}


@pytest.mark.parametrize(
    "entries",
    [
        {"kind": "other"},
        {"objects": {"components": {"score": 0.5}}},
        {"objects": {"network": {"score": 1.5}}},
        {"objects": {"network": {"score": 0.5, "counts": {"a": [[1, -1]]}}}},
        {"kind": None, "objects": {"network": NETWORK}},
        {"foreground": [0], "objects": {"network": NETWORK}},
    ],
)
def test_entries_of_instance_networks_are_checked(entries):
    from segcore.errors import ModelError

    assert parse(serialized(description(foreground=[1], objects={"network": NETWORK})), "model.json")
    with pytest.raises(ModelError):
        parse(serialized(description(**entries)), "model.json")


def test_ties_at_a_score_of_0_go_to_the_lower_loss(discs, monkeypatch, tmp_path):
    from segcore.training import loop

    results = iter([(3.0, 0.0), (2.0, 0.0), (2.5, 0.0)])
    monkeypatch.setattr(loop, "validate", lambda *arguments: next(results))
    trained = loop.train(Toy(), discs, settings(), 40, 0, tmp_path)
    table = pd.DataFrame(trained.history)
    assert list(table["best"]) == [True, True, False] and trained.facts["best_step"] == 4
    assert list(table.columns)[-3:] == ["val_loss", "val_pq", "best"]


def test_windows_overlap_as_in_evaluation(discs):
    """By the side of most objects: the score is chosen on objects that are stitched as those that it is for."""
    from segcore.inference.objects import windows_of
    from segcore.training.object_matches import window_overlap

    entry = choose_objects(toy(), discs, 64, "fp32")
    for tile in (32, 64, 500):
        assert windows_of(toy(), {"objects": entry}, tile, 64) == (tile, window_overlap(discs, tile))
    large = copy.copy(discs)
    large.objects = discs.objects.assign(height=90)
    assert window_overlap(large, 500) == 90 and window_overlap(large, 100) == 50
