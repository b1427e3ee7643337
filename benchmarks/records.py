"""What one process is asked to measure, what it answers, and the file that a whole benchmark leaves. No torch."""

from pathlib import Path
from typing import Literal

from trainer.records.base import Record, Versioned

Program = Literal["ours", "lightning"]
OURS: Program = "ours"
LIGHTNING: Program = "lightning"


class Shape(Record):
    """What is trained: an architecture on images of a dataset's size."""

    architecture: str
    dataset: str


class Side(Record):
    """One of those that are compared. precision: fp32, bf16 or fp16.

    batch: images a step (ours: a replica's, of which a step has four). loader_workers: the DataLoader's processes.
    """

    program: Program
    precision: str
    batch: int = 128
    loader_workers: int = 0


class Assignment(Record):
    """What one process measures: a first epoch to warm up, then `epochs`, each trains and validates `images`.

    launched: the parent's time.monotonic() at the process's start. gate: a folder in which to say that the first epoch
    is over and to wait for the others; None to go on at once.
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

    startup_s: from the process's start to the end of its first step. first_epoch_s: likewise to the end of its first
    epoch. train_seconds, validation_seconds: of each epoch after it; what lies between the two is training's. began,
    ended: time.monotonic() around these epochs. matrix_peak: operations a second of matrix products in this precision,
    in this process. memory_bytes: the most the process held; device_memory_bytes: on the GPU, None without one.
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
    """One measurement of a comparison. Samples of one round were taken one after another and are compared in pairs."""

    shape: Shape
    side: Side
    round: int
    measurement: Measurement


class GrowthSample(Record):
    """One of our measurements at another number of images, or beside others; measurements has one a process."""

    shape: Shape
    precision: str
    images: int
    measurements: tuple[Measurement, ...]


class Machine(Record):
    """What everything is measured on.

    cores: those that are used. auto: the precision that "auto" means there. commit, dirty: of this checkout.
    """

    cpu: str
    cores: int
    memory_bytes: int
    gpu: str | None
    auto: str
    commit: str | None
    dirty: bool | None


class Results(Versioned):
    """A whole benchmark. busy_cores: the most that others were using when a process was about to start.

    images: by architecture, how many are trained and how many validated an epoch. search: the peer's variants, each
    measured once to choose the one to compare with; empty when that was not done.
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
