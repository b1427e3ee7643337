"""What checkpoints cost the training: a copy of its state."""

import os
import time
from pathlib import Path

import torch
from checkpoint_fixtures import info_of
from torture_fixtures import Torture
from training_fixtures import make_trainer, train_epochs

from trainer.checkpoint.writer import CheckpointWriter

ROUNDS = 5


def test_training_is_held_up_for_less_than_a_plain_save_would_take(tmp_path: Path, torture: Torture) -> None:
    """Beside torch.save and fsync of the same state in the same process: the copy alone stops the loop."""
    trainer = train_epochs(make_trainer("resnet18"), 1)
    writer = CheckpointWriter(tmp_path / "checkpoints", lambda: None)
    writer.save(info_of(1), trainer.state())  # the first takes the memory for the copies to come
    writer.wait()
    held_up, plain = [], []
    for epoch in range(2, 2 + ROUNDS):
        started = time.perf_counter()
        writer.save(info_of(epoch), trainer.state())
        held_up.append(time.perf_counter() - started)
        writer.wait()
        started = time.perf_counter()
        with (tmp_path / "plain.pt").open("wb") as file:
            torch.save(trainer.state(), file)
            file.flush()
            os.fsync(file.fileno())
        plain.append(time.perf_counter() - started)
    writer.close()
    ratio = sorted(held_up)[ROUNDS // 2] / sorted(plain)[ROUNDS // 2]
    torture.say(
        f"a checkpoint of ResNet-18 holds training up for {ratio:.0%} of what torch.save and fsync take (n = {ROUNDS})"
    )
    assert ratio < 1
