"""A run put together in every process that shares it: its subset of the images, its network, process 0's state."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from trainer.data.catalog import DATASETS
from trainer.data.prepared import DataError, PreparedDataset
from trainer.data.subset import draw_subset
from trainer.loop.device import resolve_precision
from trainer.loop.group import Group
from trainer.loop.trainer import Split, Trainer
from trainer.records.base import Record
from trainer.records.recipe import replica_problem
from trainer.records.result import History
from trainer.records.run import RunSpec


class Work(Record):
    """What process 0 has every process put together and train next."""

    spec: RunSpec
    data: Path
    device: str


class ResumePoint(Record):
    """Where a run goes on, besides the tensors of its state. moments: whether the optimiser has any yet."""

    history: History
    scaler: dict[str, int | float]
    moments: bool
    threads: int


def make_trainer(
    spec: RunSpec, dataset: PreparedDataset, kept: npt.NDArray[np.int64], device: torch.device, group: Group
) -> Trainer:
    """Put a run together as it begins, with its images on the device."""
    if group.size > 1 and device.type == "cuda":
        torch.cuda.set_device(device)
    return Trainer(
        architecture=spec.run.architecture,
        dataset=DATASETS[spec.run.dataset],
        classes=len(dataset.manifest.classes),
        recipe=spec.training,
        seed=spec.run.seed,
        precision=resolve_precision(spec.training.precision, device),
        train=Split.from_arrays(*dataset.read("train", kept), device),
        val=Split.from_arrays(*dataset.read("val"), device),
        group=group,
    )


def choose_images(spec: RunSpec, dataset: PreparedDataset) -> npt.NDArray[np.int64]:
    """Draw the run's subset; refuse one that cannot be drawn or that gives a replica nothing to train on."""
    run, recipe = spec.run, spec.training
    try:
        kept = draw_subset(dataset.labels("train"), run.ratio, run.seed)
    except ValueError as error:
        raise DataError(f"{dataset.folder}: {error}") from error
    problem = replica_problem(len(kept), recipe)
    if problem:
        raise DataError(f"{dataset.folder}: ratio {run.ratio}: {problem}")
    return kept


def broadcast_state(trainer: Trainer, point: ResumePoint | None = None) -> None:
    """Have every process that shares the run go on from process 0's state; point: given there alone."""
    group = trainer.group
    words = group.broadcast_words(point.model_dump_json() if point else None)
    if point is None:
        assert words is not None
        point = ResumePoint.model_validate_json(words)
        torch.set_num_threads(point.threads)
        if point.moments:
            trainer.optimizer.begin()
        trainer.history = point.history
        if trainer.scaler.is_enabled() and point.scaler:
            trainer.scaler.load_state_dict(point.scaler)
    group.broadcast(list(trainer.state().values()))
