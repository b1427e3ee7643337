"""Small training runs in memory: learnable random images, and trainers over them."""

from pathlib import Path
from typing import Any

import torch
from networks import REFERENCE

from trainer.data.catalog import DATASETS
from trainer.loop.trainer import Split, Trainer
from trainer.records.recipe import Recipe

# Two threads that spin at every barrier, waiting for a busy core, are 20 times slower than one (torch 2.7.1 on 2 cores,
# one of them busy); one is enough for so few images.
torch.set_num_threads(1)


def random_split(samples: int, size: int = 32, classes: int = 10, seed: int = 0) -> Split:
    """Draw images (N, 3, size, size) uint8, noise around a grey level per image; labels cycle through the classes."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.randint(40, 216, (samples, 3, 1, 1), generator=generator)
    noise = torch.randint(-40, 40, (samples, 3, size, size), generator=generator)
    return Split((level + noise).to(torch.uint8), torch.arange(samples) % classes)


def make_trainer(
    architecture: str = "resnet18",
    *,
    train: Split | None = None,
    val: Split | None = None,
    dataset: str = "cifar10",
    classes: int = 10,
    seed: int = 42,
    precision: str = "fp32",
    capture: bool = True,
    **recipe: Any,
) -> Trainer:
    """Create a trainer; other settings of the recipe are the study's."""
    return Trainer(
        architecture=architecture,
        dataset=DATASETS[dataset],
        classes=classes,
        recipe=Recipe(**recipe),
        seed=seed,
        precision=precision,
        train=random_split(24) if train is None else train,
        val=random_split(10, seed=1) if val is None else val,
        capture=capture,
    )


def in_double(trainer: Trainer) -> Trainer:
    """Let its network compute in double precision, where the order of a sum is no excuse; the loss stays in single."""
    trainer.model.double().register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    return trainer


def no_tick(step: int, steps: int) -> None:
    """Do nothing between steps."""


def train_epochs(trainer: Trainer, epochs: int) -> Trainer:
    for _ in range(epochs):
        trainer.run_epoch(no_tick)
    return trainer


def assert_same(trainer: Trainer, reference: Trainer) -> None:
    """Hold a run to another one, bit for bit: history, weights, moments and scale."""
    for name in type(reference.history).model_fields:
        if name != "epoch_seconds":
            assert getattr(trainer.history, name) == getattr(reference.history, name), name
    found, expected = trainer.state(), reference.state()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert trainer.scaler_state() == reference.scaler_state()


def call(data: Path, output: Path, *more: object, architecture: str = REFERENCE, epochs: int = 6) -> list[object]:
    """Return the arguments of `python -m trainer` for a run of a few seconds on drawn images."""
    fixed = ("--architecture", architecture, "--dataset", "cifar10", "--ratio", 0.5, "--seed", 42, "--data", data)
    return [*fixed, "--output", output, "--epochs", epochs, "--batch-size", 4, "--lr-milestones", 3, *more]
