"""What a network by reference is and takes, counted without training it: held to what is known of the study's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from trainer.models.catalog import ARCHITECTURES
from trainer.models.measured import Measured

LAB = """
import os
from torch import nn
from trainer.models.vit import VisionTransformer

print("imported")
os.write(1, b"from a library in C")


def vit(classes, image_size, dropout):
    return VisionTransformer(classes, image_size, dropout)


class Deciding(nn.Linear):  # by numbers, which the meta device has none of
    def forward(self, images):
        scores = super().forward(images.flatten(1))
        return scores * 2 if scores.sum().item() > 0 else scores


def deciding(classes):
    return Deciding(3 * 32 * 32, classes)


class Wrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(10, 10)

    def forward(self, images):
        return self.head(images)


def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))


def broken(classes):
    raise RuntimeError("out of ideas")
"""


def answers(folder: Path, *asked: tuple[str, int, int]) -> list[Measured]:
    """Ask the process that measures, about networks of a user's module, at a number of classes and an image size."""
    (folder / "lab.py").write_text(LAB)
    questions = [
        {"architecture": name, "classes": classes, "image_size": size, "dropout": 0.2} for name, classes, size in asked
    ]
    done = subprocess.run(
        [sys.executable, "-m", "trainer.models.measure"],
        cwd=REPOSITORY,
        input=json.dumps({"paths": [str(folder)], "asked": questions}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [Measured(**answer) for answer in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.slow
def test_networks_are_counted_as_the_studys_own_are_known(tmp_path: Path) -> None:
    """Operations and parameters as the catalog has them; memory at most two fifths above its count."""
    resnet = "torchvision:resnet18"
    cases = [(resnet, "resnet18", 10, 32), (resnet, "resnet18", 200, 64), ("lab:vit", "vit", 200, 64)]
    found = answers(tmp_path, *((name, classes, size) for name, _, classes, size in cases))
    for (_, name, _, size), measured in zip(cases, found, strict=True):
        known = ARCHITECTURES[name]
        assert measured.problem is None
        assert measured.forward_macs == pytest.approx(known.forward_macs(size), rel=0.02)
        assert measured.parameters == pytest.approx(known.parameters, rel=0.03)
        assert 0.9 < measured.step_bytes / known.step_bytes(size) < 1.4
        assert 0.7 < measured.evaluation_bytes / known.evaluation_bytes(size) < 1.4


@pytest.mark.slow
def test_what_is_wrong_with_a_network_is_said_with_the_users_own_line(tmp_path: Path) -> None:
    """One that needs numbers is called on the CPU; the others name what they returned, or where they raised."""
    names = ("deciding", "Wrong", "narrow", "broken", "missing")
    deciding, wrong, narrow, broken, missing = answers(tmp_path, *((f"lab:{name}", 10, 32) for name in names))
    assert deciding.problem is None
    assert deciding.parameters == 30_730
    assert wrong.problem
    assert wrong.problem.startswith(f"lab.py:{line_of('return self.head(images)')}: RuntimeError: mat1 and mat2 shapes")
    assert narrow.problem == (
        "the network returned scores of the shape (2, 3) for 2 images of 10 classes; (2, 10) is needed"
    )
    assert broken.problem == f"lab.py:{line_of('out of ideas')}: RuntimeError: out of ideas"
    assert missing.problem == f"lab ({tmp_path / 'lab.py'}) has no 'missing'"


def line_of(words: str) -> int:
    return next(number for number, line in enumerate(LAB.splitlines(), start=1) if words in line)
