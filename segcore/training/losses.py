"""Losses over logits `(N, K, H, W)`: cross-entropy, soft Dice, their sum, and focal loss.

Labels are class indices `(N, H, W)` int64 with IGNORE, or soft labels: class probabilities `(N, K, H, W)`,
in which a pixel with all zeros is ignored. An ignored pixel changes neither loss nor gradient, whatever
its logits. Sums are float32, because the 262,144 pixels of a 512 x 512 crop overflow float16.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segcore.constants import IGNORE
from segcore.errors import ParamsError

Loss = Callable[[Tensor, Tensor], dict[str, Tensor]]

# keeps quotients finite; far below one pixel, so that results are exact to six digits
_EPS = 1e-6
NAMES = ("cross_entropy", "dice", "dice_semimetric", "dice_cross_entropy", "focal")


def build_loss(
    name: str, class_weights: Sequence[float] | None = None, soft: bool = False, **keywords: float
) -> Loss:
    """Build a loss by name.

    Args:
        name: one of NAMES. "dice_semimetric" is the Dice to use with soft labels, see `soft_dice`.
        class_weights: one weight per class, each 0 or more; a weighted mean over pixels (cross-entropy, focal)
            or over classes (Dice). None: all equal.
        soft: labels are soft, so that every Dice is the semimetric one.
        keywords: focal takes `gamma` (2.0); dice_cross_entropy takes `dice_weight` and
            `cross_entropy_weight` (1.0 each).

    Returns:
        A function of logits `(N, K, H, W)` in any float dtype and labels as above, which returns float32
        scalars: "loss", to be minimised, and its components. If all pixels are ignored, loss and gradient are 0.

    Raises:
        ParamsError: the name or a keyword is unknown, or a value is out of range.
    """
    defaults = {
        "focal": {"gamma": 2.0},
        "dice_cross_entropy": {"dice_weight": 1.0, "cross_entropy_weight": 1.0},
    }
    if name not in NAMES:
        raise ParamsError(f"loss {name!r} is unknown", f"choose one of: {', '.join(NAMES)}")
    settings = defaults.get(name, {})
    _check(name, class_weights, keywords, settings)
    settings, is_semimetric = settings | keywords, soft or name == "dice_semimetric"

    def loss(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        target, valid = one_hot(labels, logits.shape[1])
        log_probabilities = _log_softmax(logits, valid)
        weights = None if class_weights is None else logits.new_tensor(class_weights, dtype=torch.float32)
        if name == "cross_entropy":
            value = cross_entropy(log_probabilities, target, weights)
            return {"loss": value, "cross_entropy": value}
        if name == "focal":
            value = focal(log_probabilities, target, weights, settings["gamma"])
            return {"loss": value, "focal": value}
        by_class = soft_dice(log_probabilities.exp(), target, valid, semimetric=is_semimetric)
        dice = (
            by_class.mean() if weights is None else (by_class * weights).sum() / weights.sum().clamp_min(_EPS)
        )
        if name != "dice_cross_entropy":
            return {"loss": dice, "dice": dice}
        entropy = cross_entropy(log_probabilities, target, weights)
        total = settings["dice_weight"] * dice + settings["cross_entropy_weight"] * entropy
        return {"loss": total, "dice": dice, "cross_entropy": entropy}

    return loss


def _check(
    name: str,
    class_weights: Sequence[float] | None,
    keywords: dict[str, float],
    defaults: dict[str, float],
) -> None:
    unknown = sorted(set(keywords) - set(defaults))
    if unknown:
        valid = ", ".join(defaults) or "none"
        raise ParamsError(f"loss {name!r} has no keyword {', '.join(unknown)}", f"its keywords are: {valid}")
    if class_weights is not None and (min(class_weights) < 0 or max(class_weights) <= 0):
        raise ParamsError(
            f"class weights {list(class_weights)} have a negative value, or are all 0",
            "give each class a weight of 0 or more, and at least one class more than 0",
        )
    gamma = keywords.get("gamma", 2.0)
    # between 0 and 1, (1 - p)^gamma has an infinite slope at p = 1
    if gamma != 0 and gamma < 1:
        raise ParamsError(
            f"focal gamma {gamma} is neither 0 nor at least 1", "choose 0 or a number of at least 1"
        )


def one_hot(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Convert labels to class probabilities and a validity mask.

    Args:
        labels: `(N, H, W)` int64 with IGNORE, or soft `(N, K, H, W)` in [0, 1], all 0 where ignored.
        num_classes: K.

    Returns:
        Target `(N, K, H, W)` float32, all 0 where ignored, and valid `(N, H, W)` bool.

    Raises:
        RuntimeError: a label is neither IGNORE nor below num_classes (torch's own check).
    """
    if labels.dim() == 4:
        target = labels.float()
        return target, target.sum(1) > 0
    valid = labels != IGNORE
    shape = (labels.shape[0], num_classes, *labels.shape[1:])
    index = torch.where(valid, labels, 0)[:, None]
    target = torch.zeros(shape, device=labels.device).scatter_(1, index, valid[:, None].float())
    return target, valid


def _log_softmax(logits: Tensor, valid: Tensor) -> Tensor:
    """`(N, K, H, W)` float32; ignored logits are set to 0 first, so that inf and NaN there affect no gradient."""
    return F.log_softmax(torch.where(valid[:, None], logits, 0.0).float(), dim=1)


def cross_entropy(log_probabilities: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of `-log p` of the target class over valid pixels, weighted by class as in torch.

    Args:
        log_probabilities: `(N, K, H, W)` float32, at most 0.
        target: `(N, K, H, W)` float32 of `one_hot`.
        weights: `(K,)` or None.

    Returns:
        A scalar, at least 0; 0 if no pixel is valid.
    """
    return _pixel_mean(-log_probabilities, target, weights)


def focal(
    log_probabilities: Tensor, target: Tensor, weights: Tensor | None = None, gamma: float = 2.0
) -> Tensor:
    """Mean of `-(1 - p)^gamma log p` of the target class over valid pixels (Lin et al., arXiv 1708.02002).

    Arguments are those of `cross_entropy`, which it equals at gamma 0; the weights are the paper's alpha.
    """
    losses = -log_probabilities
    if gamma:
        losses = (-torch.expm1(log_probabilities)) ** gamma * losses
    return _pixel_mean(losses, target, weights)


def _pixel_mean(losses: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    weighted = target if weights is None else target * weights[:, None, None]
    return (weighted * losses).sum() / weighted.sum().clamp_min(_EPS)


def soft_dice(probabilities: Tensor, target: Tensor, valid: Tensor, semimetric: bool = False) -> Tensor:
    """Soft Dice loss of each class, pooled over the batch's valid pixels.

    With probability p and target g it is `1 - 2 sum(pg) / (sum(p) + sum(g))`
    (Milletari et al., arXiv 1606.04797). With soft labels its minimum is not at p = g; that of the semimetric form
    `sum|p - g| / (sum(p) + sum(g))` is, and both are equal on hard labels (Wang et al., arXiv 2303.16296).

    For a class without target pixels this loss is 1 for any prediction, with gradient 0. It is therefore replaced by
    `sum(p) / (sum(p) + valid pixels)`, which false positives increase.

    Args:
        probabilities: `(N, K, H, W)` in [0, 1], any float dtype.
        target: `(N, K, H, W)` in [0, 1].
        valid: `(N, H, W)` bool, False where ignored.
        semimetric: the form for soft labels.

    Returns:
        `(K,)` float32 in [0, 1]; 0 where p equals a hard g, and where no pixel is valid.
    """
    p = torch.where(valid[:, None], probabilities, 0.0).float()
    g = torch.where(valid[:, None], target, 0.0).float()
    over = (0, 2, 3)
    # (K,)
    size, target_size = p.sum(over) + g.sum(over), g.sum(over)
    disagreement = (p - g).abs().sum(over) if semimetric else (p + g - 2 * p * g).sum(over)
    smooth = torch.where(target_size > 0, _EPS, valid.sum().float().clamp_min(1.0))
    return disagreement / (size + smooth)
