"""The metadata of a small checkpoint."""

from typing import Any

from trainer.records.checkpoint_file import CheckpointInfo
from trainer.records.recipe import Recipe
from trainer.records.result import History
from trainer.records.run import Commitment, Run

MINE = Commitment(
    run=Run(id="resnet18-cifar10-r0.1-s42", architecture="resnet18", dataset="cifar10", ratio=0.1, seed=42),
    training=Recipe(epochs=9),
    data_fingerprint="b" * 64,
)


def history_of(epochs: int) -> History:
    return History(**{name: [0.1 * epoch + 1 / 3 for epoch in range(epochs)] for name in History.model_fields})


def info_of(epochs: int, **changes: Any) -> CheckpointInfo:
    seconds = {"train_seconds": 12.5, "evaluation_seconds": 2.25}
    fields = {"commitment": MINE, "attempt": 1, "history": history_of(epochs), "stretches": [], "threads": 1}
    return CheckpointInfo(**{**fields, **seconds, **changes})
