"""The factor on float16 losses follows torch's rule, and what overflows is no bad loss."""
import pytest
import torch

from arcshard.distributed import World
from training import optim
from training.config import TrainConfig
from training.optim import LossScale
from training.step import autocast

ALONE = World(0, 1, torch.device("cpu"))
GOOD, OVERFLOW = torch.tensor(False), torch.tensor(True)
LOSS = torch.tensor(1.0)


def test_it_moves_as_torchs_own(monkeypatch):
    """Against torch.amp.GradScaler around a real optimizer, over overflows near and far from each other."""
    monkeypatch.setattr(optim, "INTERVAL", 3)
    ours, weight = LossScale(ALONE), torch.zeros(2, requires_grad=True)
    theirs, optimizer = torch.amp.GradScaler("cpu", growth_interval=3), torch.optim.SGD([weight], lr=0.1)
    for overflows in map(int, "0010000000110001000"):
        theirs.scale((weight * (torch.inf if overflows else 1)).sum()).backward()
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        assert not ours.update(torch.tensor(bool(overflows)), LOSS)
        assert float(ours.value) == theirs.get_scale()


def test_gradients_come_back_to_their_size():
    scale, weight = LossScale(ALONE), torch.tensor([3.0], requires_grad=True)
    (weight ** 2).backward(scale.value.expand(1))
    scale.unscale([weight, torch.zeros(1, requires_grad=True)])
    assert weight.grad.item() == 6


@pytest.mark.parametrize("loss, value, bad", [(1.0, 65536.0, False), (torch.nan, 65536.0, True), (1.0, 1.0, True)])
def test_only_a_finite_loss_with_a_factor_to_lower_overflows(loss, value, bad):
    """Otherwise it is a bad update, of which the factor learns nothing."""
    scale = LossScale(ALONE)
    scale.value.fill_(value)
    assert bool(scale.update(OVERFLOW, torch.tensor(loss))) is bad
    assert scale.figures() == {"loss_scale": value if bad else value / 2, "overflowed": 0 if bad else 1}
    assert scale.figures()["overflowed"] == 0, "since the line before"


def test_small_gradients_survive_float16_with_it():
    """Of two layers of which the second is tiny: without the factor the first one's gradient is 0."""
    torch.manual_seed(0)
    first, x = torch.randn(4, 4, requires_grad=True), torch.randn(3, 4)

    def gradient(amp, factor):
        first.grad = None
        with autocast(TrainConfig(amp=amp), ALONE):
            loss = ((x @ first) @ torch.full((4, 1), 1e-4)).float().mean() * 1e-4
        loss.backward(factor)
        return first.grad

    scale = LossScale(ALONE)
    exact = gradient("none", torch.tensor(1.0)).clone()
    assert not gradient("fp16", torch.tensor(1.0)).any() and exact.any()
    gradient("fp16", scale.value)
    scale.unscale([first])
    torch.testing.assert_close(first.grad, exact, rtol=2e-2, atol=0)


def test_its_state_goes_on():
    scale, other = LossScale(ALONE), LossScale(ALONE)
    for bad in (OVERFLOW, GOOD, GOOD):
        scale.update(bad, LOSS)
    other.load_state_dict(scale.state_dict())
    assert other.figures() == scale.figures() and int(other.good) == 2


@pytest.mark.parametrize("amp, device, dtype", [
    ("auto", "cpu", torch.float32), ("bf16", "cpu", torch.bfloat16), ("fp16", "cpu", torch.float16)])
def test_products_are_in_the_format_that_is_asked_for(amp, device, dtype):
    with autocast(TrainConfig(amp=amp), World(0, 1, torch.device(device))):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
