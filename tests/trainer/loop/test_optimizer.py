"""Our fused AdamW must agree with torch.optim.AdamW bit for bit, and with GradScaler as that does."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from trainer.loop.optimizer import FusedAdamW, forget_broken_step

SETTINGS: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-7, "weight_decay": 0.05}
RATES = (3e-3, 3e-3, 1e-3, 1e-4, 0.0)


def network() -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 6 * 6, 5))
    return layers.to(memory_format=torch.channels_last)


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(4, 3, 8, 8, generator=generator) for _ in RATES]


def train(optimizer: Any, model: nn.Module, scaler: GradScaler, *, overflow: int | None) -> None:
    for number, (rate, images) in enumerate(zip(RATES, batches(), strict=True)):
        if isinstance(optimizer, FusedAdamW):
            optimizer.lr = rate
        else:
            optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        scaler.scale(model(images).square().mean() * (torch.inf if number == overflow else 1)).backward()
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize(("scaled", "overflow"), [(False, None), (True, None), (True, 2)])
def test_steps_are_those_of_torch_s_fused_adamw(scaled: bool, overflow: int | None) -> None:
    """Weights, moments and counts after five steps at falling rates; a step whose gradients overflow is not counted."""
    ours, theirs = network(), network()
    mine = FusedAdamW(ours.named_parameters(), **SETTINGS)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1.0, fused=True, **SETTINGS)
    for optimizer, model in ((mine, ours), (reference, theirs)):
        train(optimizer, model, GradScaler("cpu", enabled=scaled), overflow=overflow)
    for (name, parameter), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(parameter, expected), name
        state = reference.state[expected]
        assert mine.state[name].keys() == state.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(mine.state[name][key], state[key]) for key in state), name
        assert state["step"].item() == len(RATES) - (overflow is not None)


def test_a_parameter_without_a_gradient_stays() -> None:
    """A layer that the loss does not reach is neither moved nor decayed; its state, of no step, can be saved."""
    model = nn.Linear(3, 2)
    unused = nn.Parameter(torch.ones(3))
    optimizer = FusedAdamW([*model.named_parameters(), ("unused", unused)], **SETTINGS)
    optimizer.lr = 1e-3
    model(torch.ones(1, 3)).sum().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    assert torch.equal(unused, torch.ones(3))
    assert not torch.equal(model.weight, before)
    assert {name: state["step"].item() for name, state in optimizer.state.items()} == {
        "weight": 1,
        "bias": 1,
        "unused": 0,
    }


def test_a_step_that_broke_off_can_be_forgotten() -> None:
    """What follows is as if it had never begun: the scaler steps again, and scales once."""
    models, scalers = (network(), network()), (GradScaler("cpu"), GradScaler("cpu"))
    optimizers = [FusedAdamW(model.named_parameters(), **SETTINGS) for model in models]
    for broken, model, optimizer, scaler in zip((True, False), models, optimizers, scalers, strict=True):
        train(optimizer, model, scaler, overflow=None)
        if broken:
            moment = optimizer.state["0.weight"].pop("exp_avg")
            scaler.scale(model(batches()[0]).sum()).backward()
            with pytest.raises(KeyError):
                scaler.step(optimizer)
            optimizer.state["0.weight"]["exp_avg"] = moment
            for state in optimizer.state.values():
                state["step"] -= 1
            forget_broken_step(optimizer, scaler)
        train(optimizer, model, scaler, overflow=None)
    assert all(torch.equal(*pair) for pair in zip(*(model.parameters() for model in models), strict=True))
