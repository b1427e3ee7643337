"""Networks by reference: replicas one after the other, whatever the network holds, and what cannot be trained."""

import random
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rounding import CONVOLUTION, RESNET_LAYERS, rounding
from torch import Tensor, nn
from training_fixtures import assert_same, in_double, make_trainer, random_split, train_epochs

from trainer.loop.trainer import Trainer
from trainer.models.reference import ModelError, load_model
from trainer.models.replicas import in_turn

CLASSES = 10


class Plain(nn.Module):
    """No statistics of a batch, two dropouts, and a `view` that channels last would refuse."""

    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, 4)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(4 * 64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.convolution(images))
        return self.head(self.drop(x.view(len(x), -1)))  # type: ignore[no-any-return]


class Statistics(nn.Module):
    """Statistics of the batch, of images and of features, a spectral norm, which keeps its vectors, and a counter."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 4), nn.BatchNorm2d(6), nn.ReLU())
        self.features = nn.BatchNorm1d(6)
        self.head = nn.utils.parametrizations.spectral_norm(nn.Linear(6, classes))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.register_buffer("ones", torch.ones(1).expand(6))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
        return self.head(self.features(self.body(images).mean((2, 3))))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """One weight under two names, one that is frozen and one that takes no part."""

    def __init__(self, classes: int, image_size: int) -> None:
        super().__init__()
        self.patch = nn.Linear(3 * image_size, 8)
        self.inward = nn.Linear(8, 8, bias=False)
        self.outward = nn.Linear(8, 8, bias=False)
        self.outward.weight = self.inward.weight
        self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images.permute(0, 2, 1, 3).flatten(2)).mean(1)
        return self.head(F.gelu(self.outward(F.gelu(self.inward(x)))) * self.frozen)  # type: ignore[no-any-return]


class Moody(nn.Module):
    """Draws from Python's and numpy's generators, too."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, images: Tensor) -> Tensor:
        factor = random.random() + float(np.random.rand()) if self.training else 1.0
        return factor * self.head(images.mean((2, 3)))


NETWORKS: dict[str, Callable[..., object]] = {
    **{kind.__name__: kind for kind in (Plain, Statistics, Tied, Moody)},
    "resnet": lambda classes: __import__("torchvision").models.resnet18(num_classes=classes),
    "frozen": lambda: nn.Linear(1, 1).requires_grad_(False),
    "text": lambda **_: "a network",
    "pair": lambda: Pair(),
    "narrow": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 7)),
    "stateful": lambda: Stateful(),
}


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3072, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.head(images.flatten(1))
        return scores, scores


class Stateful(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": 3}

    def set_extra_state(self, state: Any) -> None:
        """Take nothing back."""


@pytest.fixture(autouse=True)
def mylab(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks, as a module of a user's."""
    module = ModuleType("mylab")
    module.__file__ = "mylab.py"
    vars(module).update(NETWORKS)
    monkeypatch.setitem(sys.modules, "mylab", module)


def trained(name: str, epochs: int, **recipe: Any) -> Trainer:
    settings = {"batch_size": 3, "epochs": 4, "lr_milestones": (), **recipe}
    return train_epochs(make_trainer(f"mylab:{name}", train=random_split(30), **settings), epochs)


@pytest.mark.parametrize("name", ["Plain", "Statistics", "Tied", "Moody"])
def test_a_run_that_goes_on_equals_the_one_that_never_stopped(name: str) -> None:
    """To the last bit: weights, buffers, moments, history, whatever the network holds and draws from."""
    whole = trained(name, 4)
    first = trained(name, 2)
    random.seed(5), np.random.seed(6)
    second = make_trainer(f"mylab:{name}", train=random_split(30), batch_size=3, epochs=4, lr_milestones=())
    state = {key: tensor.clone() for key, tensor in first.state().items()}
    second.restore(state, first.history, train_seconds=0, evaluation_seconds=0, scaler={})
    assert_same(train_epochs(second, 2), whole)
    assert any(a != b for a, b in pairwise(whole.history.train_loss))


def test_replicas_in_turn_are_data_parallel_ones() -> None:
    """Each from the step's own buffers; gradients are the mean, and replica 0's buffers stay."""
    torch.manual_seed(0)
    model = Statistics(CLASSES).double().train()
    images = torch.randn(12, 3, 32, 32, dtype=torch.float64)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    seen: list[dict[str, Tensor]] = []
    first: dict[str, Tensor] = {}
    for part in in_turn(model, images.split(3)):
        seen.append({name: buffer.clone() for name, buffer in model.named_buffers()})
        model(part).sum().backward()
        first = first or {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert len(seen) == 4
    for buffers in seen:
        assert all(torch.equal(buffers[name], before[name]) for name in before)
    after = dict(model.named_buffers())
    assert all(torch.equal(after[name], first[name]) for name in first)
    assert after["passes"] == 1
    assert not torch.equal(after["features.running_mean"], before["features.running_mean"])


@pytest.mark.slow
def test_a_network_of_ours_by_reference_learns_the_same() -> None:
    """torchvision's ResNet-18, its replicas one after the other, beside ours in one pass, in double precision."""
    settings: dict[str, Any] = {"train": random_split(48), "epochs": 1, "batch_size": 12, "lr_milestones": ()}
    ours = in_double(make_trainer("resnet18", **settings))
    theirs = in_double(make_trainer("mylab:resnet", **settings))
    theirs.model.load_state_dict(ours.model.state_dict())
    for trainer in (ours, theirs):
        train_epochs(trainer, 1)
    loss_bound = rounding(torch.float32, terms=CONVOLUTION, depth=2 * RESNET_LAYERS)
    assert theirs.history.train_loss == pytest.approx(ours.history.train_loss, rel=loss_bound)
    assert theirs.history.train_accuracy == ours.history.train_accuracy
    bound = rounding(torch.float64, terms=CONVOLUTION, depth=2 * RESNET_LAYERS)
    buffers = dict(theirs.model.named_buffers())
    for name, buffer in ours.model.named_buffers():
        if not name.endswith("num_batches_tracked"):  # ours does not count
            torch.testing.assert_close(buffers[name], buffer, rtol=bound, atol=bound)


def test_the_moments_of_a_weight_that_takes_no_part_are_saved_too() -> None:
    """And none of a frozen one."""
    names = trained("Tied", 1).state().keys()
    assert "optimizer.unused.exp_avg" in names
    assert "model.frozen" in names
    assert "optimizer.frozen.exp_avg" not in names


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nolab:net", "no module 'nolab' for the network nolab:net"),
        ("mylab:Plan", r"mylab \(mylab.py\) has no 'Plan'"),
        ("mylab:frozen", "mylab:frozen has no parameters to train"),
        ("mylab:text", "mylab:text returned str, not a torch.nn.Module"),
        ("mylab:stateful", "keeps '_extra_state' in its state, which is no tensor and cannot be saved"),
        ("torchvision:resnet17", "torchvision:resnet17: Unknown model resnet17"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(reference: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(reference, CLASSES, 32, 0.0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pair", "the network returned tuple instead of a tensor of scores"),
        ("narrow", r"scores of the shape \(3, 7\) for 3 images of 10 classes; \(3, 10\) is needed"),
    ],
)
def test_scores_of_another_shape_end_the_run_with_what_is_needed(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        trained(name, 1)


def test_a_module_that_a_users_module_lacks_is_named_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as if the user's own were not there."""
    (tmp_path / "halflab.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        load_model("halflab:net", CLASSES, 32, 0.0)
