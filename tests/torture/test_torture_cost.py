"""What checkpoints cost the training: a copy of its state, and a little of a core beside it."""

import os
import re
import time
from pathlib import Path

import pytest
import torch
from checkpoint_fixtures import info_of
from conftest import Command, read
from torture_fixtures import Torture
from torture_runs import arguments
from training_fixtures import make_trainer, train_epochs

from trainer.checkpoint.writer import CheckpointWriter

COST = re.compile(r"(\d+) checkpoints: held training up for ([\d.]+) s, took ([\d.]+) s of a core")
MINUTE_S = 60
SHARE = 0.02
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


def test_checkpoints_take_less_than_two_percent_of_a_minute_of_training(
    trainer: Command, data: Path, tmp_path: Path, torture: Torture
) -> None:
    """The seconds that training was held up, and the writer's on every core's share, of a run's in all."""
    call = (*arguments(data, "resnet18", 30), "--threads", os.cpu_count(), "--output")
    if not torture.long:
        pytest.skip("takes a minute of training: 'make torture' does it")
    trainer(*call, tmp_path / "short")
    epoch_s = sorted(read(tmp_path / "short" / "result.json")["history"]["epoch_seconds"])[15]
    epochs = round(1.5 * MINUTE_S / epoch_s)  # a minute at least, also where others slowed down what was measured
    process = trainer.start(*call, tmp_path / "run", "--epochs", epochs)
    _, said = process.communicate(timeout=30 * MINUTE_S)
    timing = read(tmp_path / "run" / "result.json")["timing"]
    training_s = timing["train_seconds"] + timing["evaluation_seconds"]
    found = COST.search(said)
    assert found
    count, held_up_s, beside_s = int(found[1]), float(found[2]), float(found[3])
    share = (held_up_s + beside_s / (os.cpu_count() or 1)) / training_s
    torture.say(
        f"{count} checkpoints of a run of {training_s:.0f} s held it up for {held_up_s:.2f} s and took "
        f"{beside_s:.2f} s of a core: {share:.2%} of its time"
    )
    assert count >= 1
    assert share < SHARE
