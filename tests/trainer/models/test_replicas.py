"""Replicas in one pass are data-parallel replicas: against separate passes, and against real processes with DDP."""

import copy
import json
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from rounding import CONVOLUTION, HIDDEN, RESNET_LAYERS, VIT_LAYERS, rounding
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import resnet18
from training_fixtures import in_double, make_trainer, random_split, train_epochs

from trainer.data.catalog import DATASETS
from trainer.data.order import epoch_order
from trainer.models.replicas import ReplicaBatchNorm2d
from trainer.models.vit import VisionTransformer
from trainer.records.recipe import Recipe

REPLICAS = 2
BATCHES = {"resnet18": 16, "vit": 8}  # batch statistics of fewer images magnify rounding
STEPS = 5
SEED = 42
TIMEOUT_S = 100


def grouped(plain: nn.Module, replicas: int) -> nn.Module:
    """Return torchvision's network again, with the same weights and its normalisation in groups."""
    model = resnet18(num_classes=10, norm_layer=partial(ReplicaBatchNorm2d, replicas=replicas)).to(
        next(plain.parameters()).dtype
    )
    model.load_state_dict(plain.state_dict())
    return model


def batches(count: int, images: int, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(images, 3, 32, 32, generator=generator, dtype=dtype),
            torch.randint(10, (images,), generator=generator),
        )
        for _ in range(count)
    ]


def separate_passes(model: nn.Module, images: Tensor, labels: Tensor, replicas: int) -> Tensor:
    """Do by hand what the replicas do: each its own pass, gradients averaged, buffers those of replica 0."""
    losses = []
    kept: dict[str, Tensor] = {}
    for x, y in zip(images.chunk(replicas), labels.chunk(replicas), strict=True):
        loss = F.cross_entropy(model(x), y)
        (loss / replicas).backward()
        losses.append(loss.detach())
        kept = kept or {name: buffer.clone() for name, buffer in model.named_buffers()}
    for name, buffer in model.named_buffers():
        buffer.copy_(kept[name])
    return torch.stack(losses).mean()


@pytest.mark.slow
def test_one_pass_in_groups_equals_separate_passes_of_the_replicas() -> None:
    """Loss, every gradient and the running statistics agree up to rounding in double precision, in each of three steps.

    Every step begins with the same state: normalisation over three images magnifies rounding from step to step.
    """
    torch.manual_seed(0)
    plain = resnet18(num_classes=10).double()
    ours = grouped(plain, 4)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=3e-4)
    bound = rounding(torch.float64, terms=CONVOLUTION, depth=2 * RESNET_LAYERS)  # there and back
    for images, labels in batches(3, 4 * 3, torch.float64):
        expected = {"loss": separate_passes(plain, images, labels, 4)}
        found = {"loss": F.cross_entropy(ours(images), labels)}
        found["loss"].backward()
        for model, all_ in ((plain, expected), (ours, found)):
            all_.update((name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point())
            all_.update((f"gradient of {name}", weight.grad) for name, weight in model.named_parameters())
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, atol=bound * value.abs().max().item(), rtol=0, msg=lambda m, n=name: f"{n}: {m}"
            )
        optimizer.step()
        optimizer.zero_grad()
        ours.zero_grad()
        ours.load_state_dict(plain.state_dict())


@pytest.mark.slow
def test_one_replica_is_plain_batch_normalisation() -> None:
    """With replicas = 1 the network is torchvision's, bit for bit, in training and in evaluation."""
    torch.manual_seed(0)
    plain = resnet18(num_classes=10)
    ours = grouped(plain, 1)
    for images, labels in batches(2, 8):
        losses = [F.cross_entropy(model(images), labels) for model in (plain, ours)]
        assert torch.equal(*losses)
        for loss in losses:
            loss.backward()
    for found, expected in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(found.grad, expected.grad)
    assert all(torch.equal(*pair) for pair in zip(ours.buffers(), plain.buffers(), strict=True))


@pytest.mark.slow
def test_a_step_in_uneven_passes_is_a_step_in_one() -> None:
    """Without batch statistics: 16 images as 7 + 7 + 2, the last of which must not count for more than two."""
    runs = []
    for at_once in (16, 7):
        trainer = make_trainer("vit", train=random_split(16), dropout=0.0, replicas=4, batch_size=4)
        assert trainer.images_per_pass == 16
        trainer.images_per_pass = at_once
        runs.append(train_epochs(trainer, 2))
    one, uneven = runs
    tolerance = rounding(torch.float32, terms=HIDDEN, depth=2 * 2 * VIT_LAYERS)  # there and back, twice
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert getattr(uneven.history, name) == pytest.approx(getattr(one.history, name), rel=tolerance), name


def test_a_batch_that_does_not_divide_is_refused() -> None:
    """Ten images among four replicas would be groups of 3, 3, 3 and 1: another recipe."""
    with pytest.raises(ValueError, match="does not divide into 4 replicas"):
        ReplicaBatchNorm2d(2, replicas=4)(torch.randn(10, 2, 3, 3))


@pytest.mark.slow
def test_the_replicas_are_real() -> None:
    """Four replicas give another loss, other gradients and other running statistics than one batch of the images."""
    torch.manual_seed(0)
    one = grouped(resnet18(num_classes=10), 1)
    four = grouped(one, 4)
    [(images, labels)] = batches(1, 16)
    losses = []
    for model in (one, four):
        losses.append(F.cross_entropy(model(images), labels))
        losses[-1].backward()
    assert abs(losses[0] - losses[1]) > 1e-2
    assert not torch.allclose(one.conv1.weight.grad, four.conv1.weight.grad, rtol=0.05)
    assert not torch.allclose(one.bn1.running_mean, four.bn1.running_mean, rtol=0.01)


@pytest.mark.slow
def test_running_statistics_are_replica_0_s_alone() -> None:
    """Other images in replicas 1 to 3 change no running statistic; other images in replica 0 do."""
    layer = ReplicaBatchNorm2d(5, replicas=4)
    x = torch.randn(16, 5, 3, 3, generator=torch.Generator().manual_seed(0))

    def statistics(x: Tensor) -> Tensor:
        fresh = copy.deepcopy(layer)
        fresh(x)
        return torch.stack([fresh.running_mean, fresh.running_var])

    others, first = x.clone(), x.clone()
    others[4:] += 1
    first[:4] += 1
    assert torch.equal(statistics(x), statistics(others))
    assert not torch.allclose(statistics(x), statistics(first))


def test_evaluation_takes_any_batch_and_does_not_group() -> None:
    """In evaluation an image's score does not depend on its batch, nor on the number of replicas."""
    torch.manual_seed(0)
    four = grouped(resnet18(num_classes=10), 4)
    four.double()(batches(1, 16, torch.double)[0][0])
    one = grouped(four, 1)
    four.eval()
    one.eval()
    [(images, _)] = batches(1, 7, torch.double)
    with torch.inference_mode():
        assert torch.equal(four(images), one(images))
        scores = four(images)[2:3]
        tolerance = rounding(scores.dtype, terms=CONVOLUTION, depth=RESNET_LAYERS, scale=scores.abs().max().item())
        torch.testing.assert_close(four(images[2:3]), scores, atol=tolerance, rtol=0)


def ddp_recipe(architecture: str) -> dict[str, Any]:
    """Return the recipe of the comparison with processes.

    Dropout must be 0 there: each process draws its own masks from its own generator, one pass draws one mask for all
    replicas. Both are the recipe's dropout, and no common seed makes them equal.
    """
    return {
        "replicas": REPLICAS,
        "batch_size": BATCHES[architecture],
        "dropout": 0.0,
        "augmentation": False,
    }


def ddp_replica(rank: int, folder: str) -> None:
    """Train as one process of REPLICAS under DistributedDataParallel; rank 0 writes down the losses."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=REPLICAS,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    histories = {architecture: ddp_history(architecture, rank, Path(folder)) for architecture in BATCHES}
    if rank == 0:
        Path(folder, "losses.json").write_text(json.dumps(histories))
    dist.destroy_process_group()


def ddp_history(architecture: str, rank: int, folder: Path) -> dict[str, list[float]]:
    """Take one step an epoch on this rank's share, then evaluate the network of rank 0."""
    recipe = Recipe(**ddp_recipe(architecture))
    model = resnet18(num_classes=10) if architecture == "resnet18" else VisionTransformer(10, 32, recipe.dropout)
    model.load_state_dict(load_file(folder / f"{architecture}.safetensors"))
    replica = DistributedDataParallel(model.double().to(memory_format=torch.channels_last))
    optimizer = torch.optim.AdamW(replica.parameters(), lr=recipe.learning_rate)
    train, val = comparison_data(architecture)
    dataset = DATASETS["cifar10"]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (dataset.mean, dataset.std))
    train_loss, val_loss = [], []
    for epoch in range(STEPS):
        share = epoch_order(len(train.labels), REPLICAS, recipe.batch_size, 1, SEED, epoch)[0].chunk(REPLICAS)[rank]
        model.train()
        scores = replica(channels_last((train.images[share] / 255 - mean) / std).double())
        loss = F.cross_entropy(scores.float(), train.labels[share])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        train_loss.append(total.item() / REPLICAS)
        model.eval()
        with torch.inference_mode():
            scores = model(channels_last((val.images / 255 - mean) / std).double())
            val_loss.append(F.cross_entropy(scores.float(), val.labels).item())
    return {"train_loss": train_loss, "val_loss": val_loss}


def channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def comparison_data(architecture: str) -> tuple[Any, Any]:
    return random_split(REPLICAS * BATCHES[architecture]), random_split(10, seed=1)


@pytest.mark.slow
def test_replicas_on_one_device_equal_processes_with_distributed_data_parallel(tmp_path: Path) -> None:
    """Step by step, the loss of two replicas in one pass is that of two real processes with torch's own DDP.

    So is the validation loss after each step, which rank 0's running statistics decide. From the same weights, with
    torchvision's ResNet-18 and the ViT, plain AdamW, gloo, the networks in double precision.
    """
    trainers = {}
    for name in BATCHES:
        train, val = comparison_data(name)
        trainers[name] = in_double(make_trainer(name, train=train, val=val, seed=SEED, **ddp_recipe(name)))
    for name, trainer in trainers.items():
        weights = {key: tensor.contiguous() for key, tensor in trainer.model.state_dict().items()}
        save_file(weights, tmp_path / f"{name}.safetensors")
    processes = mp.spawn(ddp_replica, args=(str(tmp_path),), nprocs=REPLICAS, join=False)
    try:
        for trainer in trainers.values():
            assert trainer.steps == 1
            train_epochs(trainer, STEPS)
        deadline = time.monotonic() + TIMEOUT_S
        while not processes.join(timeout=1):
            assert time.monotonic() < deadline, "the processes hang"
    finally:
        for process in processes.processes:
            process.kill()
    histories = json.loads((tmp_path / "losses.json").read_text())
    tolerance = rounding(torch.float32, terms=REPLICAS * max(BATCHES.values()), depth=STEPS)
    for name, trainer in trainers.items():
        for metric, expected in histories[name].items():
            assert getattr(trainer.history, metric) == pytest.approx(expected, rel=tolerance), (name, metric)
        assert max(histories[name]["train_loss"]) - min(histories[name]["train_loss"]) > 0.05, "nothing was learnt"
