"""Timing inside a measured process, for both sides: start-up, epochs, memory, the device's peak."""

import resource
import sys
import time
from collections.abc import Callable
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
    """Images (N, 3, S, S) uint8 and labels (N,) int64 of both splits, in memory."""

    train: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    val: npt.NDArray[np.uint8]
    val_labels: npt.NDArray[np.int64]
    classes: int


class Watch:
    """Times one process. The sides call it after each step and epoch."""

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
        """Read the images to train on and validate."""
        dataset = open_dataset(self.assignment.data, self.assignment.shape.dataset)
        train, val = (dataset.read(split, np.arange(self.assignment.images)) for split in ("train", "val"))
        return Images(*train, *val, classes=len(dataset.manifest.classes))

    def now(self) -> float:
        """Return the time after the device has finished its queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    def step_ended(self) -> None:
        """Record the time of the first step; later calls cost one comparison."""
        if not self.startup_s:
            self.startup_s = self.now() - self.assignment.launched

    def epoch_ended(self, validation_s: float) -> None:
        """Record the time of an epoch, validation_s of which was validation."""
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
        deadline = time.monotonic() + GATE_PATIENCE_S
        while not (gate / "go").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the processes beside this one were not ready after {GATE_PATIENCE_S:.0f} s")
            time.sleep(0.005)

    def measurement(self, *, trained: int, validated: int, train_loss: float, val_accuracy: float) -> Measurement:
        """Build the measurement; reads the memory first, as matrix_peak allocates more."""
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
    """Parse the parent's arguments: the assignment as JSON, and the answer's path."""
    return Assignment.model_validate_json(arguments[0]), Path(arguments[1])


def answer(path: Path, measurement: Measurement) -> None:
    """Write the measurement for the parent."""
    write_json(path, measurement)


def peak_memory_bytes() -> int:
    """Read this process's peak memory. Not ru_maxrss, which on Linux includes the parent's at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@torch.inference_mode()
def matrix_peak(device: torch.device, precision: str) -> float:
    """Measure operations per second of square matrix products."""
    size, dtype = MATRIX[device.type], AUTOCAST.get(precision, torch.float32)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / least_seconds(lambda: torch.mm(a, b), device)


def least_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Measure some work's seconds: the least of those repetitions that fit in PEAK_S."""
    best, started = float("inf"), time.perf_counter()
    while (elapsed := time.perf_counter() - started) < 2 * PEAK_S:
        _synchronise(device)
        before = time.perf_counter()
        work()
        _synchronise(device)
        if elapsed > PEAK_S:
            best = min(best, time.perf_counter() - before)
    return best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
