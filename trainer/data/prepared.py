"""A prepared dataset on disk: four memory-mappable arrays and the manifest that vouches for them.

`<data>/<dataset>/manifest.json` is written with the arrays into a folder that is renamed into place whole, so a
manifest that is there has its arrays. Preparation writes this; the trainer, the planner and `sweep data info` read it.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.catalog import DATASETS
from trainer.files import RecordError, read_json
from trainer.records import Versioned

SPLITS = ("train", "val")


class DataError(Exception):
    """A dataset that is missing, damaged or not what it says; the message is one sentence for the user."""


class Manifest(Versioned):
    """What was prepared and from what.

    fingerprint: sha256 over the arrays' bytes (see `fingerprint_of`), the dataset's identity in every result.
    official: the source had the official archive's md5. synthetic: drawn by `sweep data synthesize`.
    """

    dataset: str
    fingerprint: str
    official: bool
    synthetic: bool
    source: str
    classes: list[str]
    image_size: int
    train_samples: int
    val_samples: int
    prepared: datetime


class PreparedDataset:
    """The arrays of one prepared dataset, memory-mapped.

    images(split): (N, 3, S, S) uint8. labels(split): (N,) int64, indices into manifest.classes. Both in the dataset's
    own order: CIFAR-10's batches one after another; TinyImageNet by class in sorted order, then by file name.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def images(self, split: str) -> npt.NDArray[np.uint8]:
        return self._load(f"{split}_images.npy")

    def labels(self, split: str) -> npt.NDArray[np.int64]:
        return self._load(f"{split}_labels.npy")

    def _load(self, name: str) -> npt.NDArray[Any]:
        try:
            array: npt.NDArray[Any] = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{self.folder / name}: cannot be read ({error}); remove {self.folder} and prepare it again with "
                f"'sweep data prepare {self.manifest.dataset}'"
            ) from error
        return array


def read_manifest(data: Path, dataset: str) -> Manifest | None:
    """Give the manifest of a prepared dataset, None if it has not been prepared. Raises DataError if it is damaged."""
    try:
        return read_json(data / dataset / "manifest.json", Manifest)
    except RecordError as error:
        raise DataError(f"{error}; remove {data / dataset} and prepare it again") from error


def open_dataset(data: Path, dataset: str) -> PreparedDataset:
    """Open a prepared dataset. Raises DataError with the command that would prepare it."""
    manifest = read_manifest(data, dataset)
    if manifest is None:
        title = DATASETS[dataset].title if dataset in DATASETS else dataset
        raise DataError(
            f"{data / dataset}: {title} is not prepared; run 'sweep data prepare {dataset} --source ARCHIVE --data {data}'"
        )
    return PreparedDataset(data / dataset, manifest)
