"""Networks of a user's own, for tests that need a run and not the study's networks.

A ResNet-18 takes a core a second for a checkpoint and most of one for an epoch of a few images.
"""

import shutil
import time
from pathlib import Path

import torch
from torch import Tensor, nn

REFERENCE = "networks:small"
LARGE, LARGE_MB = "networks:large", 40

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


def small(classes: int, dropout: float) -> nn.Module:
    """Build a network that is trained and saved in no time."""
    return Small(classes, dropout)


def large(classes: int, dropout: float) -> nn.Module:
    """Build one whose checkpoints take LARGE_MB each."""
    model = Small(classes, dropout)
    model.ballast = nn.Parameter(torch.zeros(LARGE_MB * 1_000_000 // 4), requires_grad=False)
    return model


def put_networks(folder: Path) -> None:
    """Put this module beside a sweep file, where a user would have it."""
    shutil.copy(__file__, folder / "networks.py")
