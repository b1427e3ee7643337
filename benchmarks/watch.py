"""The clock inside a measured process, the same for both sides: start-up, epochs, memory, the device's own peak."""

import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.records import Assignment, Measurement
from trainer.data.prepared import open_dataset
from trainer.loop.device import AUTOCAST, choose_device
from trainer.records.files import write_json

PACKAGES = ("torch", "torchvision", "lightning", "numpy", "pillow")
GATE_PATIENCE_S = 600.0
PEAK_S = 0.7  # of matrix products, after as long a warm-up
MATRIX = {"cpu": 2048, "cuda": 8192}


class Images(NamedTuple):
    """The images of both splits, (N, 3, S, S) uint8 and (N,) int64, in memory."""

    train: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    val: npt.NDArray[np.uint8]
    val_labels: npt.NDArray[np.int64]
    classes: int


class Watch:
    """Times one process. The sides call it after their first step and after every epoch."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.device = choose_device(assignment.device)
        self.precision = assignment.side.precision
        torch.set_num_threads(assignment.threads)
        self.startup_s = 0.0
        self.first_epoch_s = 0.0
        self.began = self.ended = 0.0
        self.train_seconds: list[float] = []
        self.validation_seconds: list[float] = []

    def images(self) -> Images:
        """Read the images that are trained and validated."""
        dataset = open_dataset(self.assignment.data, self.assignment.shape.dataset)
        train, val = (dataset.read(split, np.arange(self.assignment.images)) for split in ("train", "val"))
        return Images(*train, *val, classes=len(dataset.manifest.classes))

    def now(self) -> float:
        """Give the time at which the device has done all it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    def step_ended(self) -> None:
        """Take the time of the first step; the others cost a comparison."""
        if not self.startup_s:
            self.startup_s = self.now() - self.assignment.launched

    def epoch_ended(self, validation_s: float) -> None:
        """Take the time of an epoch, of which so much was validation."""
        ended = self.now()
        if not self.first_epoch_s:
            self.first_epoch_s = ended - self.assignment.launched
            self._wait_for_others()
            self.began = self.ended = self.now()
            return
        self.train_seconds.append(ended - self.ended - validation_s)
        self.validation_seconds.append(validation_s)
        self.ended = ended

    def _wait_for_others(self) -> None:
        gate = self.assignment.gate
        if gate is None:
            return
        (gate / f"ready-{time.monotonic_ns()}").touch()
        patience = time.monotonic() + GATE_PATIENCE_S
        while not (gate / "go").exists():
            if time.monotonic() > patience:
                raise TimeoutError(f"the processes beside this one were not ready after {GATE_PATIENCE_S:.0f} s")
            time.sleep(0.005)

    def measurement(self, *, trained: int, validated: int, train_loss: float, val_accuracy: float) -> Measurement:
        """Give what was measured; the memory first, for the matrix products need some of their own."""
        cuda = self.device.type == "cuda"
        memory, device_memory = peak_memory_bytes(), torch.cuda.max_memory_reserved() if cuda else None
        return Measurement(
            precision=self.precision,
            trained=trained,
            validated=validated,
            startup_s=self.startup_s,
            first_epoch_s=self.first_epoch_s,
            train_seconds=tuple(self.train_seconds),
            validation_seconds=tuple(self.validation_seconds),
            began=self.began,
            ended=self.ended,
            matrix_peak=matrix_peak(self.device, self.precision),
            memory_bytes=memory,
            device_memory_bytes=device_memory,
            train_loss=train_loss,
            val_accuracy=val_accuracy,
            gpu=torch.cuda.get_device_name(self.device) if cuda else None,
            versions={"python": sys.version.split()[0]}
            | {name: found for name in PACKAGES if (found := _version(name))},
        )


def read_assignment(arguments: list[str]) -> tuple[Assignment, Path]:
    """Read what the parent passes: the assignment as JSON, and the file to answer in."""
    return Assignment.model_validate_json(arguments[0]), Path(arguments[1])


def answer(path: Path, measurement: Measurement) -> None:
    """Leave the measurement for the parent."""
    write_json(path, measurement)


def peak_memory_bytes() -> int:
    """Give the most memory this process has held. Linux's ru_maxrss would include the parent's at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@torch.inference_mode()
def matrix_peak(device: torch.device, precision: str) -> float:
    """Measure operations a second of square matrix products: the best of as many as fit the time."""
    size, dtype = MATRIX[device.type], AUTOCAST.get(precision, torch.float32)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, started = float("inf"), time.perf_counter()
    while (elapsed := time.perf_counter() - started) < 2 * PEAK_S:
        _synchronise(device)
        before = time.perf_counter()
        torch.mm(a, b)
        _synchronise(device)
        if elapsed > PEAK_S:
            best = min(best, time.perf_counter() - before)
    return 2 * size**3 / best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
