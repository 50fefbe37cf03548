"""One process of a training that `torchrun` started for test_distributed.py; it writes its results."""

import json
import os
import signal
import sys
from pathlib import Path

from safetensors.torch import save_file

from segcore.data.prepared import PreparedData
from segcore.params import TrainSettings
from segcore.training.build import new_model
from segcore.training.distributed import accelerator
from segcore.training.loop import train


def main(prepared: str, settings: str, window: str, folder: str) -> None:
    """Train U-Net with seed 0 in `folder`; history, facts and weights are written there, by rank."""
    data, options = PreparedData(prepared), TrainSettings(**json.loads(settings))
    where, rank = Path(folder), accelerator().process_index
    before = (where / "checkpoint.safetensors").exists()
    kill_at = int(os.environ.get("SEGFLOW_TEST_KILL_AT", "-1"))

    def on_step(step: int, loss: float) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    trained = train(new_model("unet", options, data, 0), data, options, int(window), 0, where, on_step)
    weights = {name: tensor.contiguous() for name, tensor in trained.model.state_dict().items()}
    save_file(weights, where / f"weights-{rank}.safetensors")
    results = {"history": trained.history, "facts": trained.facts, "resumed": before}
    (where / f"results-{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
