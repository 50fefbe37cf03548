"""Losses: examples of four pixels calculated by hand, invalid inputs, and comparison with MONAI."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segcore.constants import IGNORE
from segcore.errors import ParamsError
from segcore.training.losses import NAMES, build_loss, one_hot, soft_dice


def batch(seed: int, classes: int = 3, size: int = 8) -> tuple[Tensor, Tensor]:
    """Random logits (2, K, S, S) and labels (2, S, S) in which every class occurs."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, size, size, generator=generator) * 3
    labels = torch.randint(0, classes, (2, size, size), generator=generator)
    labels[0, 0, :classes] = torch.arange(classes)
    return logits, labels


def dice_of(p: list[float], g: list[float]) -> float:
    shape = (1, 1, 1, len(p))
    probabilities, target = torch.tensor(p).view(shape), torch.tensor(g).view(shape)
    return float(soft_dice(probabilities, target, torch.ones(1, 1, len(p), dtype=torch.bool)))


def test_dice_of_examples_calculated_by_hand() -> None:
    assert dice_of([1, 0, 0, 1, 0, 0], [1, 0, 1, 1, 0, 0]) == pytest.approx(0.2, abs=1e-6)
    assert dice_of([0.9, 0.6, 0.4, 0.1], [1, 1, 0, 0]) == pytest.approx(0.25, abs=1e-6)
    assert dice_of([1, 0, 1, 1], [1, 0, 1, 1]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_prediction_has_loss_zero_even_with_absent_classes(name: str) -> None:
    labels = torch.randint(0, 2, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    logits = one_hot(labels, 4)[0] * 100
    for value in build_loss(name)(logits, labels).values():
        assert value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("garbage", [0.0, 1e4, float("inf"), float("-inf"), float("nan")])
def test_ignored_pixels_change_neither_loss_nor_gradient(name: str, garbage: float) -> None:
    logits, labels = batch(1)
    labels[:, 3:5] = IGNORE

    def loss_and_gradient(fill: float) -> tuple[Tensor, Tensor]:
        given = logits.clone()
        given[:, :, 3:5] = fill
        given.requires_grad_()
        loss = build_loss(name, class_weights=[1, 2, 3])(given, labels)["loss"]
        loss.backward()
        assert given.grad is not None
        return loss.detach(), given.grad

    loss, gradient = loss_and_gradient(garbage)
    expected_loss, expected_gradient = loss_and_gradient(-1.5)
    assert torch.equal(loss, expected_loss) and loss > 0
    assert torch.equal(gradient, expected_gradient)
    assert gradient[:, :, 3:5].abs().max() == 0 and gradient[:, :, :3].abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_with_ignored_rows_is_that_without_them(name: str) -> None:
    logits, labels = batch(2)
    kept = build_loss(name)(logits[:, :, :5], labels[:, :5])["loss"]
    labels[:, 5:] = IGNORE
    torch.testing.assert_close(build_loss(name)(logits, labels)["loss"], kept)


@pytest.mark.parametrize("name", NAMES)
def test_all_ignored_batch_has_loss_and_gradient_zero(name: str) -> None:
    logits = torch.full((2, 3, 4, 4), float("nan"), requires_grad=True)
    loss = build_loss(name, class_weights=[1, 1, 2])(logits, torch.full((2, 4, 4), IGNORE))["loss"]
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_in_half_precision_at_512(name: str, dtype: torch.dtype) -> None:
    logits = torch.randn(1, 2, 512, 512, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(1, 512, 512, dtype=torch.int64)
    half = logits.to(dtype).requires_grad_()
    loss = build_loss(name)(half, labels)["loss"]
    loss.backward()
    expected = build_loss(name)(logits, labels)["loss"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=0.001)
    assert half.grad is not None and torch.isfinite(half.grad).all()
    # this case does overflow in float16
    assert torch.isinf(torch.ones(512, 512, dtype=torch.float16).sum().half())


@pytest.mark.parametrize("sharpness", [1.0, 5.0])
def test_dice_on_empty_target_has_gradient_for_false_positives(sharpness: float) -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    logits = torch.zeros(1, 2, 32, 32)
    logits[:, 0], logits[:, 1, :16] = sharpness / 2, sharpness
    logits.requires_grad_()
    # only the empty class
    build_loss("dice", class_weights=[0, 1])(logits, labels)["loss"].backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    false_positives = logits.grad[0, 1, :16]
    # gradient descent lowers their logits
    assert (false_positives > 1e-6).all()


def test_the_minimum_of_plain_dice_is_not_at_soft_labels_and_that_of_the_semimetric_is() -> None:
    soft = torch.full((1, 1, 4, 4), 0.7)
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    grid = torch.linspace(0, 1, 101)

    def best(semimetric: bool) -> float:
        losses = torch.cat([soft_dice(soft * 0 + p, soft, valid, semimetric) for p in grid])
        return float(grid[losses.argmin()])

    assert best(semimetric=True) == pytest.approx(0.7, abs=1e-6)
    assert best(semimetric=False) == 1.0
    assert soft_dice(soft, soft, valid, semimetric=True).item() == 0


def test_descent_on_semimetric_reaches_soft_labels() -> None:
    target = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    target = torch.cat([1 - target, target], dim=1)
    logits = torch.zeros(1, 2, 6, 6, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        build_loss("dice_semimetric")(logits, target)["loss"].backward()
        optimiser.step()
    assert (logits.softmax(1) - target).abs().max() < 0.05


@given(seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_soft_labels_of_zero_and_one_equal_hard_labels(seed: int) -> None:
    logits, labels = batch(seed)
    labels[:, 2] = IGNORE
    soft, _ = one_hot(labels, 3)
    for name in NAMES:
        torch.testing.assert_close(
            build_loss(name)(logits, soft)["loss"], build_loss(name)(logits, labels)["loss"]
        )
    plain, semimetric = (build_loss(name)(logits, labels)["loss"] for name in ("dice", "dice_semimetric"))
    torch.testing.assert_close(plain, semimetric)


@given(seed=st.integers(0, 2**31), classes=st.integers(2, 5), gamma=st.sampled_from([0.0, 1.0, 2.0, 3.5]))
@settings(max_examples=40, deadline=None)
def test_losses_equal_monai(seed: int, classes: int, gamma: float) -> None:
    # imported here, because it takes seconds
    import monai.losses

    logits, labels = batch(seed, classes)
    truth = labels[:, None]
    shared = {"to_onehot_y": True, "softmax": True, "batch": True}

    dice = monai.losses.DiceLoss(**shared)(logits, truth)
    torch.testing.assert_close(build_loss("dice")(logits, labels)["loss"], dice, rtol=1e-4, atol=1e-5)
    both = monai.losses.DiceCELoss(**shared, lambda_dice=0.5, lambda_ce=2.0)(logits, truth)
    ours = build_loss("dice_cross_entropy", dice_weight=0.5, cross_entropy_weight=2.0)(logits, labels)
    torch.testing.assert_close(ours["loss"], both, rtol=1e-4, atol=1e-5)
    focal = monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma)(logits, truth)
    ours = build_loss("focal", gamma=gamma)(logits, labels)
    # MONAI also divides by the number of classes
    torch.testing.assert_close(ours["loss"], focal * classes, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_weighted_cross_entropy_equals_torch_in_value_and_gradient(seed: int) -> None:
    logits, labels = batch(seed)
    labels[:, 1] = IGNORE
    weights = [0.5, 2.0, 1.0]
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours = build_loss("cross_entropy", class_weights=weights)(a, labels)["loss"]
    theirs = F.cross_entropy(b, labels, weight=torch.tensor(weights), ignore_index=IGNORE)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(a.grad, b.grad)


def test_label_beyond_the_classes_is_refused() -> None:
    with pytest.raises(RuntimeError, match="out of bounds"):
        build_loss("dice")(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), 2))


def test_unknown_names_and_values_are_refused_with_the_valid_ones() -> None:
    with pytest.raises(ParamsError, match=r"lovasz.*\n.*cross_entropy, dice, .*focal"):
        build_loss("lovasz")
    with pytest.raises(ParamsError, match=r"gama.*\n.*gamma"):
        build_loss("focal", gama=2.0)
    with pytest.raises(ParamsError, match="class weights"):
        build_loss("dice", class_weights=[0, 0])
    with pytest.raises(ParamsError, match=r"0\.5"):
        build_loss("focal", gamma=0.5)


@pytest.mark.parametrize("name", ["dice", "dice_cross_entropy"])
def test_with_soft_labels_every_dice_is_lowest_at_the_target(name: str) -> None:
    target = torch.tensor([0.3, 0.7, 0.9, 0.5]).reshape(1, 1, 2, 2)
    target = torch.cat([target, 1 - target], dim=1)
    soft, plain = (build_loss(name, soft=soft) for soft in (True, False))
    sharper = (3 * target.log()).log_softmax(1)
    assert soft(target.log(), target)["dice"] < 1e-6 < soft(sharper, target)["dice"]
    assert plain(sharper, target)["dice"] < plain(target.log(), target)["dice"]
