"""The fast ways to execute a step must do what the step as written does: recorded and replayed, draws made ahead."""

import gc
import logging
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from training_fixtures import assert_same, make_trainer, random_split, train_epochs

from trainer.data.catalog import DATASETS
from trainer.data.draws import Draws, EpochDraws, draw_epoch
from trainer.loop.optimizer import forget_broken_step
from trainer.loop.step import WARM_UP, CapturedStep, Work
from trainer.loop.trainer import Trainer

CPU = torch.device("cpu")


class Repeater:
    """Records by remembering the work, where there is no GPU: a replay does it again on the same memory."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.warmed_up = self.recorded = self.replayed = 0

    def warm_up(self, work: Work) -> None:
        self.warmed_up += 1
        work()

    def record(self, work: Work) -> Work:
        self.recorded += 1
        if self.broken:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


def small(architecture: str, **recipe: Any) -> Trainer:
    """Make a run of two steps an epoch."""
    return make_trainer(architecture, train=random_split(8), val=random_split(4), replicas=2, batch_size=2, **recipe)


def captured(trainer: Trainer, recorder: Repeater) -> Trainer:
    forget = partial(forget_broken_step, trainer.optimizer, trainer.scaler)
    trainer.execution = CapturedStep(CPU, recorder, forget)
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "recipe"),
    [
        ("resnet18", {}),
        ("vit", {"augmentation": False}),
        ("vit", {"lr_milestones": (1, 2), "precision": "fp16"}),
    ],
)
def test_a_recorded_step_finds_what_the_eager_one_is_given(architecture: str, recipe: dict[str, Any]) -> None:
    """Images, boxes, dropout and learning rate of each step: history and state after three epochs, bit for bit."""
    recorder = Repeater()
    ours = train_epochs(captured(small(architecture, **recipe), recorder), 3)
    assert (recorder.warmed_up, recorder.recorded, recorder.replayed) == (WARM_UP, 1, 6 - WARM_UP)
    assert_same(ours, train_epochs(small(architecture, **recipe), 3))


@pytest.mark.slow
def test_a_recorded_step_goes_on_from_a_restored_state() -> None:
    """The restored tensors are where the recorded step looks for them, also when it was recorded before."""
    reference = train_epochs(small("vit"), 2)
    saved = {name: tensor.clone() for name, tensor in reference.state().items()}
    history = reference.history
    ours = train_epochs(captured(small("vit"), Repeater()), 3)
    for trainer in (ours, reference):
        trainer.restore(saved, history, train_seconds=0, evaluation_seconds=0, scaler={})
        train_epochs(trainer, 1)
    assert_same(ours, reference)


@pytest.mark.slow
def test_a_step_that_cannot_be_recorded_goes_on_as_written(caplog: pytest.LogCaptureFixture) -> None:
    """One sentence in the log, one try, and the same numbers."""
    recorder = Repeater(broken=True)
    with caplog.at_level(logging.WARNING):
        ours = train_epochs(captured(small("vit"), recorder), 2)
    assert recorder.recorded == 1
    assert [record.message for record in caplog.records] == [
        "the training step could not be recorded as a CUDA graph, and goes on as written: operation not permitted"
    ]
    assert_same(ours, train_epochs(small("vit"), 2))


@pytest.mark.slow
def test_a_run_gives_its_memory_back_when_it_ends() -> None:
    """No cycle keeps the network until a collection: the next run of the bundle needs the GPU's memory."""
    trainer = train_epochs(captured(small("vit"), Repeater(broken=True)), 2)
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
