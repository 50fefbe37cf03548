"""One process of test_distributed.py: float64 gradients of a divided batch compared with those of the whole batch."""

import copy
import json
import sys
from pathlib import Path

import torch
from torch import nn

from segcore.models.base.factory import build_model
from segcore.training.distributed import Distributed, accelerator
from segcore.training.losses import build_loss

# not divisible by two processes
BATCH = 5


def distances(name: str, share: Distributed) -> dict[str, float]:
    """Largest differences of loss, gradients (relative to the largest one) and running statistics."""
    torch.manual_seed(0)
    small = (
        {"encoder": "plain", "width": 4} if name == "unet" else {"encoder": "mobilenet_v2", "weights": "none"}
    )
    whole = build_model(name, 3, 3, **small).double()
    for module in whole.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            # dropout masks differ between processes by design
            module.p = 0.0
    whole.criterion = build_loss("dice_cross_entropy", [1.0, 2.0, 0.5])
    divided = copy.deepcopy(whole)
    share.prepare(divided)
    images = torch.randn(BATCH, 3, 64, 64, dtype=torch.float64)
    labels = torch.randint(0, 3, (BATCH, 64, 64))
    # items have different numbers of valid pixels, so that a mean of means is wrong
    labels[0, :50] = 255
    expected = whole.loss({"image": images, "label": labels})["loss"]
    expected.backward()
    part = share.of_batch(BATCH)
    logits, target = (share.whole_batch(t, BATCH) for t in (divided(images[part]), labels[part]))
    loss = divided.criterion(logits, target)["loss"]
    loss.backward()
    share.add_gradients(divided)
    pairs = list(zip(whole.parameters(), divided.parameters(), strict=True))
    largest = max(float(a.grad.abs().max()) for a, _ in pairs)
    states = zip(whole.state_dict().values(), divided.state_dict().values(), strict=True)
    return {
        "loss": abs(float(loss) - float(expected)),
        "gradient": max(float((a.grad - b.grad).abs().max()) for a, b in pairs) / largest,
        "statistics": max(float((a.double() - b.double()).abs().max()) for a, b in states),
    }


if __name__ == "__main__":
    mine = Distributed.of(accelerator())
    found = {name: distances(name, mine) for name in sys.argv[2:]}
    Path(sys.argv[1], f"distances-{mine.rank}.json").write_text(json.dumps(found))
