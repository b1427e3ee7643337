"""What a process is asked to measure, what it answers, and the file of a whole benchmark. No torch."""

from pathlib import Path
from typing import Literal

from trainer.records.base import Record, Versioned

Program = Literal["ours", "lightning"]
OURS: Program = "ours"
LIGHTNING: Program = "lightning"


class Shape(Record):
    """An architecture on images of a dataset's size."""

    architecture: str
    dataset: str


class Side(Record):
    """A program with its options. precision: fp32, bf16 or fp16.

    batch: images per step (ours: per replica, four per step). loader_workers: the DataLoader's processes.
    """

    program: Program
    precision: str
    batch: int = 128
    loader_workers: int = 0


class Assignment(Record):
    """What one process measures: an epoch to warm up, then `epochs`, each of which trains and validates `images`.

    launched: the parent's time.monotonic() at the start of the process. gate: a folder in which to report the end of
    the first epoch and wait for the others; None to continue at once.
    """

    shape: Shape
    side: Side
    images: int
    epochs: int
    threads: int
    device: str
    data: Path
    launched: float
    gate: Path | None = None


class Measurement(Record):
    """What one process measured; times in seconds.

    startup_s: from the start of the process to the end of its first step. first_epoch_s: from there to the end of its
    first epoch. train_seconds, validation_seconds: of each epoch after it; time between the two counts as training.
    began, ended: time.monotonic() around these epochs. matrix_peak: operations per second of matrix products in this
    precision, in this process. memory_bytes: peak of the process; device_memory_bytes: on the GPU, None without one.
    """

    precision: str
    trained: int
    validated: int
    startup_s: float
    first_epoch_s: float
    train_seconds: tuple[float, ...]
    validation_seconds: tuple[float, ...]
    began: float
    ended: float
    matrix_peak: float
    memory_bytes: int
    device_memory_bytes: int | None
    train_loss: float
    val_accuracy: float
    gpu: str | None
    versions: dict[str, str]


class Sample(Record):
    """One measurement of a comparison. Samples of one round were measured in sequence and are compared in pairs."""

    shape: Shape
    side: Side
    round: int
    measurement: Measurement


class GrowthSample(Record):
    """Our measurements, one per process, at a number of images or with several processes at once."""

    shape: Shape
    precision: str
    images: int
    measurements: tuple[Measurement, ...]


class Machine(Record):
    """The machine. cores: those used. auto: the precision that "auto" chooses. commit, dirty: of this checkout."""

    cpu: str
    cores: int
    memory_bytes: int
    gpu: str | None
    auto: str
    commit: str | None
    dirty: bool | None


class Results(Versioned):
    """A whole benchmark. busy_cores: the most that others used just before a process started.

    images: by architecture, trained and as many validated per epoch. search: the peer's variants, each measured once
    to choose the one to compare with; empty if not searched.
    """

    date: str
    quick: bool
    machine: Machine
    busy_cores: float
    images: dict[str, int]
    epochs: int
    search: list[Sample]
    samples: list[Sample]
    growth: list[GrowthSample]
