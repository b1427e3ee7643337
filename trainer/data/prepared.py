"""A prepared dataset on disk: four memory-mappable arrays and the manifest that describes them.

`<data>/<dataset>/manifest.json` and the arrays are written into a folder that is then renamed into place, so a manifest
always has its arrays. Preparation writes it; the trainer, the planner and `sweep data info` read it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.data.catalog import DATASETS
from trainer.records.base import Versioned
from trainer.records.files import RecordError, read_json

if TYPE_CHECKING:  # the planner reads manifests only; numpy would take a quarter of its start-up
    import numpy as np
    import numpy.typing as npt

SPLITS = ("train", "val")
MANIFEST = "manifest.json"

# In the root of what `sweep data synthesize` draws, so that nobody mistakes it for real data.
SYNTHETIC_MARKER = "SYNTHETIC.txt"

# Rows read at a time: about 12 MB at 64×64 pixels, all the extra memory that verifying and loading need.
_ROWS = 1024

_REPORT_EVERY_S = 0.1

Report = Callable[[str, int, int], None]
"""Called with (stage, done, total) repeatedly, and at a stage's end with done == total. total 0: unknown."""


class DataError(Exception):
    """A dataset is missing, damaged or inconsistent; the message is one sentence for the user.

    what: the problem, without the remedy if that is given.
    """

    def __init__(self, what: str, remedy: str | None = None) -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what = what


class Manifest(Versioned):
    """What was prepared, and from which source.

    fingerprint: see `Fingerprint`; the dataset's identity in every result. official: the source had the official md5.
    synthetic: drawn by `sweep data synthesize`. source: as the user named it. source_md5: None for an unpacked folder.
    """

    dataset: str
    fingerprint: str
    official: bool
    synthetic: bool
    source: str
    source_md5: str | None = None
    classes: list[str]
    image_size: int
    train_samples: int
    val_samples: int
    prepared: datetime

    def layout(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of each array by name, in the fingerprint's order."""
        layout: dict[str, tuple[tuple[int, ...], str]] = {}
        for split, samples in zip(SPLITS, (self.train_samples, self.val_samples), strict=True):
            layout[f"{split}_images"] = ((samples, 3, self.image_size, self.image_size), "|u1")
            layout[f"{split}_labels"] = ((samples,), "<i8")
        return layout


class Split(NamedTuple):
    """One split of a source. labels: (N,) int64. images: chunks (n, 3, S, S) uint8 that add up to N."""

    labels: npt.NDArray[np.int64]
    images: Iterator[npt.NDArray[np.uint8]]


class Contents(NamedTuple):
    """What a reader finds in a source; the images are read as they are iterated over."""

    classes: list[str]
    image_size: int
    train: Split
    val: Split


class Fingerprint:
    """A dataset's fingerprint, computed incrementally; `fingerprint_of` computes it from whole arrays.

    sha256 over one JSON line with the class names, then for each of train_images, train_labels, val_images and
    val_labels one JSON line [name, dtype, shape] and the array's bytes, C order, little-endian. It does not depend on
    the source of the pixels, their packing or the number of workers that decoded them.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._digest = hashlib.sha256()
        self._line(list(classes))

    def begin(self, name: str, dtype: str, shape: Sequence[int]) -> None:
        self._line([name, dtype, list(shape)])

    def update(self, rows: npt.NDArray[Any]) -> None:
        import numpy as np

        self._digest.update(np.ascontiguousarray(rows).data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _line(self, value: object) -> None:
        self._digest.update(json.dumps(value, ensure_ascii=True).encode() + b"\n")


def fingerprint_of(
    classes: Sequence[str],
    arrays: Mapping[str, npt.NDArray[Any]],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Compute a dataset's identity: equal fingerprints mean equal training data.

    arrays: {train,val}_images (N, 3, S, S) uint8 and {train,val}_labels (N,) int64. report: called with (rows, all).
    """
    fingerprint = Fingerprint(classes)
    total = sum(len(array) for array in arrays.values())
    done = 0
    for name in (f"{split}_{part}" for split in SPLITS for part in ("images", "labels")):
        array = arrays[name]
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        fingerprint.begin(name, array.dtype.str, array.shape)
        for start in range(0, len(array), _ROWS):
            rows = array[start : start + _ROWS]
            fingerprint.update(rows)
            done += len(rows)
            report(done, total)
    return fingerprint.hexdigest()


class PreparedDataset:
    """The arrays of one prepared dataset, memory-mapped.

    images(split): (N, 3, S, S) uint8. labels(split): (N,) int64, indices into manifest.classes. Both in the dataset's
    own order: CIFAR-10's batches in sequence; TinyImageNet sorted by class, then by file name.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def images(self, split: str) -> npt.NDArray[np.uint8]:
        return self._load(f"{split}_images")

    def labels(self, split: str) -> npt.NDArray[np.int64]:
        return self._load(f"{split}_labels")

    def read(
        self, split: str, kept: npt.NDArray[np.int64] | None = None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Read images and labels of a split into memory; kept: only those with these indices (n,), in this order.

        Reads front to back and maps one block at a time: pages of a mapped file count as the process's memory, which
        would double it for all of TinyImageNet. Raises DataError as `arrays` does.
        """
        import numpy as np

        images, labels = self.images(split), self.labels(split)
        kept = np.arange(len(labels)) if kept is None else kept
        taken = np.empty((len(kept), *images.shape[1:]), images.dtype)
        forward = np.argsort(kept, kind="stable")
        ends = np.searchsorted(kept[forward], np.arange(_ROWS, len(images), _ROWS))
        for block in np.split(forward, ends):
            if len(block):
                taken[block] = self.images(split)[kept[block]]
        return taken, labels[kept]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Map all four arrays. Raises DataError if one is missing, truncated or not as the manifest says."""
        return {name: self._load(name) for name in self.manifest.layout()}

    def _load(self, name: str) -> npt.NDArray[Any]:
        path = self.folder / f"{name}.npy"
        import numpy as np

        try:
            array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: cannot be read ({error})", self.remedy()) from error
        shape, dtype = self.manifest.layout()[name]
        if array.shape != shape or array.dtype.str != dtype:
            found, expected = f"{array.dtype.str} {array.shape}", f"{dtype} {shape}"
            raise DataError(f"{path}: holds {found}, its manifest says {expected}", self.remedy())
        return array

    def remedy(self) -> str:
        """Return the advice for damaged arrays."""
        return f"remove {self.folder} and prepare it again with 'sweep data prepare {self.manifest.dataset}'"


def paced(report: Report) -> Report:
    """Limit reports to ten per second, plus every stage's first and last."""
    stage_then, reported = "", 0.0

    def pass_on(stage: str, done: int, total: int) -> None:
        nonlocal stage_then, reported
        now = time.monotonic()
        if done == total or stage != stage_then or now - reported >= _REPORT_EVERY_S:
            stage_then, reported = stage, now
            report(stage, done, total)

    return pass_on


def read_manifest(data: Path, dataset: str) -> Manifest | None:
    """Read the manifest of a dataset, None if it has not been prepared. Raises DataError if it is damaged."""
    try:
        return read_json(data / dataset / MANIFEST, Manifest)
    except RecordError as error:
        raise DataError(str(error), f"remove {data / dataset} and prepare it again") from error


def open_dataset(data: Path, dataset: str) -> PreparedDataset:
    """Open a prepared dataset. Raises DataError with the command that prepares it if it is not."""
    manifest = read_manifest(data, dataset)
    if manifest is None:
        title = DATASETS[dataset].title if dataset in DATASETS else dataset
        raise DataError(
            f"{data / dataset}: {title} is not prepared",
            f"run 'sweep data prepare {dataset} --source ARCHIVE --data {data}'",
        )
    return PreparedDataset(data / dataset, manifest)


def verify(data: Path, dataset: str, report: Report = lambda stage, done, total: None) -> Manifest:
    """Check every byte of a prepared dataset against its manifest, which is returned.

    Raises DataError if the dataset is not prepared or has changed since.
    """
    prepared = open_dataset(data, dataset)
    manifest = prepared.manifest
    report = paced(report)
    found = fingerprint_of(manifest.classes, prepared.arrays(), lambda done, total: report("verifying", done, total))
    if found != manifest.fingerprint:
        raise DataError(
            f"{prepared.folder}: fingerprint is {found}, its manifest says {manifest.fingerprint}: the arrays have "
            f"changed since they were prepared; {prepared.remedy()}"
        )
    return manifest
