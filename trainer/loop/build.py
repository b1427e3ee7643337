"""Put a run together as it begins: its subset of the images, its network, all on the device."""

import numpy as np
import numpy.typing as npt
import torch

from trainer.data.catalog import DATASETS
from trainer.data.prepared import DataError, PreparedDataset
from trainer.data.subset import draw_subset
from trainer.loop.device import resolve_precision
from trainer.loop.group import Alone
from trainer.loop.trainer import Split, Trainer
from trainer.records.recipe import replica_problem
from trainer.records.run import RunSpec


def make_trainer(
    spec: RunSpec, dataset: PreparedDataset, kept: npt.NDArray[np.int64], device: torch.device, group: Alone
) -> Trainer:
    """Put a run together as it begins, with its images on the device."""
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
