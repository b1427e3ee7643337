"""Create trainers over the smaller drawn set, in this process."""

import numpy as np
import torch

from benchmarks.gpu_check.setting import SEED, Combination, Setting
from trainer.data.catalog import DATASETS
from trainer.data.prepared import open_dataset
from trainer.loop.device import choose_device
from trainer.loop.trainer import Split, Trainer
from trainer.records.recipe import Recipe


def make(
    one: Combination, setting: Setting, *, epochs: int = 180, capture: bool = True, device: str | None = None
) -> Trainer:
    """Create a trainer; capture: whether its step is recorded."""
    dataset = open_dataset(setting.data(), one.dataset)
    target = choose_device(device or setting.device)
    return Trainer(
        architecture=one.architecture,
        dataset=DATASETS[one.dataset],
        classes=len(dataset.manifest.classes),
        recipe=Recipe(epochs=epochs, batch_size=setting.batch),
        seed=SEED,
        precision=one.precision,
        train=Split.from_arrays(*dataset.read("train", np.arange(setting.some)), target),
        val=Split.from_arrays(*dataset.read("val"), target),
        capture=capture,
    )


def no_tick(step: int, steps: int) -> None:
    """Do nothing between steps."""


def train(trainer: Trainer, epochs: int) -> Trainer:
    for _ in range(epochs):
        trainer.run_epoch(no_tick)
    return trainer


def is_recorded(trainer: Trainer) -> bool:
    """Tell whether the trainer replays its step."""
    return getattr(trainer.execution, "_replay", None) is not None


def wait(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
