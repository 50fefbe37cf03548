"""What a comparison tells its trainings about those that are left."""

from flows.compare import Tally, _trainings
from tasks.training_time import LEFT
from tasks.versioning.stages import Stage
from tasks.versioning.status import Survey


def test_trainings_that_have_ended_or_are_unchanged_are_not_left() -> None:
    graph = [
        Stage("prepare", "prepare", (), None, None),
        *(Stage(f"train@unet-{seed}", "train", ("prepare",), "unet", seed) for seed in range(4)),
        Stage("evaluate@unet-0", "evaluate", ("train@unet-0",), "unet", 0),
    ]
    trainings = _trainings(Survey(graph, {"prepare", "train@unet-3"}))
    assert trainings == {f"train@unet-{seed}": ("unet", seed) for seed in range(3)}
    tally = Tally(len(graph), trainings, 2)
    assert tally.variables() == {LEFT: "3 2"}
    assert tally.add_one("train@unet-0") == "1 of 6 stages done"
    tally.add_one("evaluate@unet-0")
    assert tally.variables() == {LEFT: "2 2"}
    tally.add_one("train@unet-1")
    tally.add_one("train@unet-2")
    # a training that was thought unchanged, and runs after all
    assert tally.variables() == {LEFT: "1 2"}
