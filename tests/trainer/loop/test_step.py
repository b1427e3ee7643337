"""The fast ways to execute a step must do what the step as written does: recorded and replayed, draws made ahead."""

import gc
import inspect
import logging
import sys
import textwrap
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from strict_graph import StrictGraphs
from torch import Tensor, nn
from training_fixtures import assert_same, make_trainer, random_split, train_epochs

from trainer.data.catalog import DATASETS
from trainer.data.draws import Draws, EpochDraws, draw_epoch
from trainer.loop.optimizer import FusedAdamW, forget_broken_step
from trainer.loop.step import WARM_UP, CapturedStep
from trainer.loop.trainer import Trainer
from trainer.models.dropout import Dropout

CPU = torch.device("cpu")


def small(architecture: str, dataset: str = "cifar10", **recipe: Any) -> Trainer:
    """Make a run of two steps an epoch, each epoch at a tenth of the rate before, with a GPU's dropout."""
    train, val = (random_split(samples, DATASETS[dataset].image_size) for samples in (8, 4))
    recipe = {"replicas": 2, "batch_size": 2, "lr_milestones": (1, 2, 3), **recipe}
    trainer = make_trainer(architecture, train=train, val=val, dataset=dataset, **recipe)
    for module in list(trainer.model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.p))
    return trainer


def captured(trainer: Trainer, recorder: StrictGraphs | None = None) -> Trainer:
    forget = partial(forget_broken_step, trainer.optimizer, trainer.scaler)
    trainer.execution = CapturedStep(CPU, recorder or StrictGraphs(), forget)
    return trainer


def looking(trainer: Trainer) -> Trainer:
    """Have the step look at the device, which no recording may."""

    def look(_: object, inputs: tuple[Tensor, ...]) -> None:
        inputs[0].sum().item()

    trainer.model.blocks[3].register_forward_pre_hook(look)
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "recipe"),
    [
        ("resnet18", {}),
        ("resnet18", {"precision": "fp16"}),
        ("vit", {"dataset": "tinyimagenet"}),
        ("vit", {"augmentation": False, "precision": "bf16"}),
    ],
)
def test_a_recorded_step_finds_what_the_eager_one_is_given(architecture: str, recipe: dict[str, Any]) -> None:
    """Images, boxes, dropout and learning rate of each step: history and state after three epochs, bit for bit."""
    recorder = StrictGraphs()
    ours = train_epochs(captured(small(architecture, **recipe), recorder), 3)
    assert (recorder.warmed_up, recorder.recorded, recorder.replayed) == (WARM_UP, 1, 6 - WARM_UP)
    assert_same(ours, train_epochs(small(architecture, **recipe), 3))


@pytest.mark.slow
def test_a_recorded_step_goes_on_from_a_restored_state() -> None:
    """The restored tensors are where the recorded step looks for them, also when it was recorded before."""
    reference = train_epochs(small("vit"), 2)
    saved = {name: tensor.clone() for name, tensor in reference.state().items()}
    history = reference.history
    ours = train_epochs(captured(small("vit")), 3)
    for trainer in (ours, reference):
        trainer.restore(saved, history, train_seconds=0, evaluation_seconds=0, scaler={})
        train_epochs(trainer, 1)
    assert_same(ours, reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "written", "planted"),
    [
        (FusedAdamW, "lr", "self._rate.fill_(rate)", "self._rate = torch.full_like(self._rate, rate)"),
        (FusedAdamW, "step", "lr=self._rate", "lr=self._lr"),
        (FusedAdamW, "load", "tensor.copy_(state[name][key])", "mine[key] = state[name][key].clone()"),
        (Trainer, "_update", "self._loss_sum +=", "self._loss_sum = self._loss_sum +"),
        (Trainer, "_update", "self._correct +=", "self._correct = self._correct +"),
        (CapturedStep, "begin", "if self._draws is None", "if True"),
    ],
)
def test_a_strict_graph_shows_what_a_recorded_step_must_not_do(
    owner: type, name: str, written: str, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New memory for the old, a number for what changes: right as written, wrong where no Python runs."""
    plant(monkeypatch, owner, name, written, planted)
    with pytest.raises(AssertionError, match=r"given back|train_(loss|accuracy)"):
        assert_same(restored_midway(captured(small("vit"))), restored_midway(small("vit")))


def plant(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, written: str, planted: str) -> None:
    """Change the source of a method, or of a property's setter, in one place."""
    method = vars(owner)[name]
    source = textwrap.dedent(inspect.getsource(getattr(method, "fset", method)))
    assert source.count(written) == 1
    scope = {**vars(sys.modules[owner.__module__]), **vars(owner)}
    exec(source.replace(written, planted), scope)  # noqa: S102  # our own source
    monkeypatch.setattr(owner, name, scope[name])


def restored_midway(trainer: Trainer) -> Trainer:
    """Train three epochs, then a fourth from a copy of the state after them."""
    train_epochs(trainer, 3)
    saved = {name: tensor.clone() for name, tensor in trainer.state().items()}
    trainer.restore(saved, trainer.history, train_seconds=0, evaluation_seconds=0, scaler={})
    return train_epochs(trainer, 1)


@pytest.mark.slow
def test_a_step_that_cannot_be_recorded_goes_on_as_written(caplog: pytest.LogCaptureFixture) -> None:
    """One sentence in the log, one try, and the same numbers."""
    recorder = StrictGraphs()
    with caplog.at_level(logging.WARNING):
        ours = train_epochs(captured(looking(small("vit")), recorder), 2)
    assert (recorder.recorded, recorder.replayed) == (1, 0)
    assert [record.message for record in caplog.records] == [
        "the training step could not be recorded as a CUDA graph, and goes on as written: "
        "CUDA error: operation not permitted when stream is capturing"
    ]
    assert_same(ours, train_epochs(small("vit"), 2))


@pytest.mark.slow
@pytest.mark.parametrize("change", [looking, lambda trainer: trainer], ids=["broken off", "recorded"])
def test_a_run_gives_its_memory_back_when_it_ends(change: Callable[[Trainer], Trainer]) -> None:
    """No cycle keeps the network until a collection: the next run of the bundle needs the GPU's memory."""
    trainer = train_epochs(captured(change(small("vit"))), 2)
    model = weakref.ref(trainer.model)
    gc.disable()
    try:
        del trainer
        assert model() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["cifar10", "tinyimagenet"])
def test_draws_made_ahead_are_those_of_their_epoch(name: str) -> None:
    """In order, after a jump, as a resumed run makes one, and asked for twice."""
    draw = partial(draw_epoch, DATASETS[name], 50, 2, 8, 3, 42)
    ahead = EpochDraws(draw, epochs=9, ahead=True)
    for epoch in (0, 1, 2, 7, 8, 8, 3):
        for found, expected in zip(flat(ahead.take(epoch)), flat(draw(epoch)), strict=True):
            assert found.shape == (3, 16)
            assert torch.equal(found, expected)
    assert not torch.equal(draw(0).boxes.top, draw(1).boxes.top)


def flat(draws: Draws) -> list[Tensor]:
    return [draws.order, *draws.boxes]


def test_no_convolution_is_chosen_by_the_clock() -> None:
    """The winner of a search by time changes from process to process, and with it the last bits."""
    torch.backends.cudnn.benchmark = True
    small("resnet18")
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)
