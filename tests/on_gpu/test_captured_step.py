"""On a GPU: steps captured as a CUDA graph do what eager steps do, and the same again.

Ordinary runs of pytest leave this folder out (`tests/conftest.py`). Without a GPU its tests fail.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from training_fixtures import assert_same, make_trainer, random_split, train_epochs

from trainer.loop.step import CapturedStep
from trainer.loop.trainer import Split, Trainer


@contextmanager
def warnings_of_the_trainer(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    said: list[str] = []
    with caplog.at_level(logging.WARNING):
        yield said
    said += [record.message for record in caplog.records]


def on_gpu(architecture: str, *, capture: bool, precision: str = "fp32") -> Trainer:
    """Make a run of 32 steps on the GPU, at a rate that does not magnify rounding."""
    device = torch.device("cuda", 0)
    train, val = (Split(*(part.to(device) for part in random_split(n, seed=n))) for n in (512, 100))
    recipe: dict[str, Any] = {"epochs": 4, "replicas": 4, "batch_size": 16, "learning_rate": 3e-5}
    return make_trainer(architecture, train=train, val=val, precision=precision, capture=capture, **recipe)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("architecture", ["resnet18", "vit"])
def test_a_captured_run_agrees_with_an_eager_one(
    architecture: str, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Over four epochs with dropout and augmentation: losses to a hundredth in fp16, to 1e-3 in fp32."""
    with warnings_of_the_trainer(caplog) as said:
        ours = train_epochs(on_gpu(architecture, capture=True, precision=precision), 4)
    assert said == []
    assert isinstance(ours.execution, CapturedStep)
    reference = train_epochs(on_gpu(architecture, capture=False, precision=precision), 4)
    tolerance = 1e-3 if precision == "fp32" else 1e-2
    for name in ("train_loss", "val_loss"):
        assert getattr(ours.history, name) == pytest.approx(getattr(reference.history, name), rel=tolerance), name
    assert all(state["step"].item() == 32 for state in ours.optimizer.state.values()) or precision == "fp16"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("architecture", ["resnet18", "vit"])
def test_a_gpu_computes_the_same_run_twice(architecture: str, precision: str) -> None:
    """History and state after four epochs, bit for bit: what goes on from a checkpoint depends on it."""
    ours, again = (train_epochs(on_gpu(architecture, capture=True, precision=precision), 4) for _ in range(2))
    assert_same(ours, again)


def test_a_run_whose_capture_breaks_off_goes_on_as_written(caplog: pytest.LogCaptureFixture) -> None:
    """A look at the device while it is captured: the generator draws on, the memory is free, the losses agree."""
    trainer = on_gpu("vit", capture=True)

    def look(_: object, inputs: tuple[Tensor, ...]) -> None:
        if torch.cuda.is_current_stream_capturing():
            inputs[0].sum().item()

    trainer.model.blocks[3].register_forward_pre_hook(look)
    with warnings_of_the_trainer(caplog) as said:
        train_epochs(trainer, 4)
    assert len(said) == 1
    assert said[0].startswith("the training step could not be recorded as a CUDA graph")
    torch.cuda.empty_cache()  # refuses while a capture is thought to be going on
    reference = train_epochs(on_gpu("vit", capture=False), 4)
    assert trainer.history.train_loss == pytest.approx(reference.history.train_loss, rel=1e-3)
