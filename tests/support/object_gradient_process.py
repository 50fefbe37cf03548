"""One process of test_distributed.py: a step of instance networks on a divided batch, compared with the whole one."""

import copy
import json
import sys
from pathlib import Path

import torch

from segcore.params import TrainSettings
from segcore.training.distributed import Distributed, accelerator
from segcore.training.optimizer import make_optimizer
from segcore.training.runtime import Runtime
from segcore.training.step import StepContext, TrainStep
from tests.support.instance_batches import case_id, cases, crowd, network, stacked

CPU = torch.device("cpu")
# of two processes, the first has no object
COUNTS = (0, 0, 40, 0, 3)
SETTINGS = TrainSettings(
    steps=1, batch=len(COUNTS), crop=64, validate_every=1, learning_rate=1e-3, precision="fp32"
)
RUNTIME = Runtime("cpu", "fp32", True, False, False, False, 1, 0, len(COUNTS), False)


def distances(case, share: Distributed) -> dict[str, float]:
    """Largest differences of loss and gradients, both relative."""
    batch = stacked([crowd(seed, count) for seed, count in enumerate(COUNTS)])
    whole = network(case).eval()
    divided = copy.deepcopy(whole)
    share.prepare(divided)
    part = {name: tensor[share.of_batch(len(COUNTS))] for name, tensor in batch.items()}
    results = []
    for model, items, processes in ((whole, batch, Distributed()), (divided, part, share)):
        context = StepContext(SETTINGS, CPU, processes, RUNTIME)
        loss = TrainStep(model, make_optimizer(model, SETTINGS), context).step(items, 1e-3)
        results.append((loss, torch.cat([p.grad.flatten() for p in model.parameters()])))
    (loss, gradient), (of_process, of_divided) = results
    return {
        "loss": float(abs(of_process - loss) / loss),
        "gradient": float((gradient - of_divided).abs().max() / gradient.abs().max()),
    }


if __name__ == "__main__":
    mine = Distributed.of(accelerator())
    found = {case_id(case): distances(case, mine) for case in cases()}
    Path(sys.argv[1], f"distances-{mine.rank}.json").write_text(json.dumps(found))
