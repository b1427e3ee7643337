"""Networks of a user's own, for tests that need a run and not the study's networks.

A ResNet-18 takes a core a second for a checkpoint and most of one for an epoch of a few images.
"""

import logging
import os
import shutil
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

REFERENCE = "networks:small"
LARGE, LARGE_MB = "networks:large", 40
WATCHED = "networks:watched"

PASS_S = 0.01  # a test that stops a run in the middle must find it there; sleep costs no core


class Small(nn.Module):
    """A convolution with batch statistics, the mean over the image, dropout, and a linear layer."""

    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(8, classes))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            time.sleep(PASS_S)
        return self.head(self.body(images).mean((2, 3)))  # type: ignore[no-any-return]


class Watched(Small):
    """Notes every pass of its training beside the bundle of its job: a line "RUN PID SECONDS" in passes-TASK.

    A task may hold several runs; the one at work is the one whose log the process writes.
    """

    def forward(self, images: Tensor) -> Tensor:
        logs = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
        if self.training and logs and "--bundle" in sys.argv:
            run_id = Path(logs[-1].baseFilename).parents[1].name
            bundle, task = (sys.argv[sys.argv.index(name) + 1] for name in ("--bundle", "--task"))
            with Path(bundle).with_name(f"passes-{task}").open("a") as file:
                file.write(f"{run_id} {os.getpid()} {time.time()}\n")
        return super().forward(images)


def small(classes: int, dropout: float) -> nn.Module:
    """Build a network that is trained and saved in no time."""
    return Small(classes, dropout)


def large(classes: int, dropout: float) -> nn.Module:
    """Build one whose checkpoints take LARGE_MB each."""
    model = Small(classes, dropout)
    model.ballast = nn.Parameter(torch.zeros(LARGE_MB * 1_000_000 // 4), requires_grad=False)
    return model


def watched(classes: int, dropout: float) -> nn.Module:
    """Build the small one, which tells who trains it and when, whatever the trainer's own records say."""
    return Watched(classes, dropout)


def put_networks(folder: Path) -> None:
    """Put this module beside a sweep file, where a user would have it."""
    shutil.copy(__file__, folder / "networks.py")
