"""The trainer's code on GPUs that are not there: what is where, in which format, how much, and who waits for it."""

import gc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import CARDS, Replays, Watch, fake_cuda
from torch import Tensor
from training_fixtures import make_trainer, no_tick, train_epochs

from trainer.checkpoint.writer import CheckpointWriter
from trainer.data.prepared import open_dataset
from trainer.loop import trainer as loop
from trainer.loop.build import choose_images
from trainer.loop.build import make_trainer as build
from trainer.loop.cause import cause_of
from trainer.loop.device import AUTOCAST, DeviceError, choose_device, resolve_precision
from trainer.loop.group import Group
from trainer.loop.step import WORTH_RECORDING, CapturedStep
from trainer.loop.trainer import Split, Trainer, train
from trainer.records.attempt import Cause
from trainer.records.recipe import Recipe
from trainer.records.result import History
from trainer.records.run import Run, RunSpec

pytestmark = pytest.mark.slow
GIB = 2**30
WARM_UP = 1
IMAGES = 512  # one step of four replicas of 128
NETWORKS = [(name, size) for name in ("resnet18", "vit") for size in (32, 64)]
REFUSED = {("p100", "bf16"), ("v100", "bf16")}
LOOKS = ["_local_scalar_dense"] * 4  # an epoch: loss and correct answers, of the training and of the validation
# GiB counted on paper for four replicas of 128 and evaluations of 2,500: weights with gradients and moments, a step, an
# evaluation, in fp32; and in fp16 or bf16 the sum of all with the images of the whole dataset.
COUNTED = {
    ("resnet18", 32): (0.17, 0.22, 0.34, 0.7),
    ("resnet18", 64): (0.17, 0.90, 1.36, 2.7),
    ("vit", 32): (0.05, 2.56, 1.46, 3.0),
    ("vit", 64): (0.05, 2.60, 1.65, 4.3),
}
DATASET_GIB = {32: 0.17, 64: 1.26}


def split(images: int, size: int) -> Split:
    """Return images on the card of the test."""
    device = torch.device("cuda", 0)
    pixels = torch.empty(images, 3, size, size, dtype=torch.uint8, device=device)
    return Split(pixels, torch.zeros(images, dtype=torch.int64, device=device))


def on_card(network: str, size: int, precision: str, **recipe: Any) -> Trainer:
    """Make a run whose epochs are one step, and that is worth recording."""
    return make_trainer(
        network,
        dataset="cifar10" if size == 32 else "tinyimagenet",
        train=split(IMAGES, size),
        val=split(2500, size),
        precision=precision,
        **{"epochs": WORTH_RECORDING, **recipe},
    )


@pytest.fixture(autouse=True)
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Replays]:
    """Have steps recorded by stand-ins, which are returned as they are made."""
    monkeypatch.setattr("trainer.loop.step.WARM_UP", WARM_UP)
    made: list[Replays] = []

    def make(device: torch.device) -> Replays:
        made.append(Replays(device))
        return made[-1]

    monkeypatch.setattr(loop, "CudaGraphs", make)
    return made


@pytest.fixture
def h100() -> Iterator[Watch]:
    with fake_cuda("h100") as watch:
        yield watch


@pytest.mark.parametrize(("network", "size"), NETWORKS)
@pytest.mark.parametrize("kind", CARDS)
def test_every_run_computes_on_its_card_in_its_format_and_waits_for_nothing(
    kind: str, network: str, size: int, recorders: list[Replays]
) -> None:
    """As written and recorded, in each number format that the card has: no tensor elsewhere, four looks an epoch."""
    for precision in ("fp32", "fp16", "bf16"):
        with fake_cuda(kind) as watch:
            device = choose_device("auto")
            assert device.type == "cuda"
            if (kind, precision) in REFUSED:
                with pytest.raises(DeviceError, match="has no bf16"):
                    resolve_precision("bf16", device)
                continue
            trainer = on_card(network, size, precision)
            for _ in range(WARM_UP + 2):
                watch.looks.clear()
                trainer.run_epoch(no_tick)
                assert watch.looks == LOOKS
            assert isinstance(trainer.execution, CapturedStep)
            assert recorders.pop().recorded == 1
            assert watch.strays == set()
            for name, tensor in trainer.state().items():
                assert tensor.device.type == "cuda", name
                assert tensor.dtype in (torch.float32, torch.int64), name
            crops = {torch.float32} if size == 64 else set()  # are interpolated by products, before the network
            assert watch.products == {AUTOCAST.get(precision, torch.float32)} | crops
            del trainer


@pytest.mark.parametrize(("network", "size"), NETWORKS)
def test_a_run_takes_the_memory_that_was_counted(network: str, size: int) -> None:
    """From the tensors that live at the peaks, within 15 %: each part in fp32, the sum in fp16 and bf16."""
    for precision in ("fp32", "fp16", "bf16"):
        with fake_cuda("h100") as watch:
            trainer = on_card(network, size, precision)
            images = sum(part.nbytes for part in (trainer.train.images, trainer.val.images))
            trainer._train_epoch(no_tick)
            weights = watch.held() - images
            step = watch.most(partial(trainer._train_epoch, no_tick))
            evaluation = watch.most(partial(trainer._evaluate, no_tick))
        found = [part / GIB for part in (weights, step, evaluation)]
        *parts, reduced = COUNTED[network, size]
        if precision == "fp32":
            assert found == pytest.approx(parts, rel=0.15)
        else:
            assert sum(found) + DATASET_GIB[size] == pytest.approx(reduced, rel=0.15)


def test_the_largest_need_comes_before_the_first_step(h100: Watch) -> None:
    """ResNet-18 takes most in its evaluation: what does not fit fails at once, not after an epoch."""
    trainer = on_card("resnet18", 64, "fp32", epochs=1)
    peaks: list[int] = []

    def tick(step: int, steps: int) -> None:
        peaks.append(h100.peak)

    h100.peak = h100.held()
    train(trainer, tick, lambda: None)
    assert peaks[0] >= 0.99 * peaks[-1] - 0.2 * GIB  # what the first step leaves, weights' moments and gradients
    assert h100.looks == LOOKS


def test_a_checkpoint_takes_each_tensor_once_and_gives_it_back(h100: Watch, tmp_path: Path) -> None:
    """A copy on the CPU, one wait a tensor; restored, all is on the card again."""
    saved, fresh = (on_card("vit", 32, "fp16") for _ in range(2))
    train_epochs(saved, 1)
    h100.looks.clear()
    writer = CheckpointWriter(tmp_path, lambda: None)
    state = saved.state()
    writer._take_copy(state)
    assert {tensor.device.type for tensor in writer._copy.values()} == {"cpu"}
    assert h100.looks == ["copy_"] * len(state)
    fresh.restore(writer._copy, History(), train_seconds=0, evaluation_seconds=0, scaler={})
    assert {tensor.device.type for tensor in fresh.state().values()} == {"cuda"}
    assert fresh.state().keys() == state.keys()
    train_epochs(fresh, 1)
    assert h100.strays == set()
    writer.close()


def test_a_run_is_put_together_from_prepared_images_on_the_card(h100: Watch, data: Path) -> None:
    """As the trainer does it, from files to the end of an epoch."""
    spec = RunSpec(
        run=Run(id="r", architecture="resnet18", dataset="cifar10", ratio=0.5, seed=1),
        training=Recipe(epochs=1, batch_size=8, precision="auto"),
    )
    dataset = open_dataset(data, "cifar10")
    trainer = build(spec, dataset, choose_images(spec, dataset), choose_device("auto"), Group())
    assert trainer.precision == "bf16"
    train(trainer, no_tick, lambda: None)
    assert trainer.epoch == 1
    assert trainer.train.images.device.type == "cuda"
    assert h100.strays == set()


def test_a_step_that_fails_leaves_no_memory_behind(h100: Watch) -> None:
    """The next run of the bundle finds an empty card: no cycle holds what a broken step had made."""
    trainer = on_card("vit", 32, "bf16", capture=False)  # a stand-in's recording would hold the step's Python
    train_epochs(trainer, 1)

    def full(module: object, inputs: tuple[Tensor, ...]) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    trainer.model.blocks[5].register_forward_pre_hook(full)  # type: ignore[index,union-attr]  # a ViT's
    gc.disable()
    try:
        cause = None
        try:
            trainer.run_epoch(no_tick)
        except RuntimeError as error:
            cause = cause_of(error)
        assert cause is Cause.CUDA_OOM
        assert h100.held() > 40e6
        del trainer
        assert h100.held() < 1000  # the dataset's mean and deviation
    finally:
        gc.enable()


def test_a_hidden_look_at_the_device_is_seen(h100: Watch) -> None:
    """A test of these tests."""

    def look(module: object, inputs: tuple[Tensor, ...]) -> None:
        bool(inputs[0].sum() > 0)

    trainer = on_card("vit", 32, "fp32")
    trainer.model.blocks[2].register_forward_pre_hook(look)  # type: ignore[index,union-attr]
    train_epochs(trainer, 1)
    assert len(h100.looks) == len(LOOKS) + 2  # one in a step, one in an evaluation


def test_a_tensor_left_on_the_cpu_is_seen(h100: Watch) -> None:
    """A test of these tests: a real card would refuse it, or copy it in every step."""
    trainer = on_card("vit", 32, "fp32")

    def shift(module: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] + torch.zeros(inputs[0].shape[-1]),)

    trainer.model.blocks[2].register_forward_pre_hook(shift)  # type: ignore[index,union-attr]
    with pytest.raises(RuntimeError, match="device"):
        train_epochs(trainer, 1)
    assert h100.strays == {"add"}
