"""Draw the images and run each measurement in a process of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.records import Assignment, Machine, Measurement, Program, Shape, Side
from trainer.data.prepare import prepare
from trainer.data.prepared import read_manifest
from trainer.data.synthesize import synthesize
from trainer.records.files import read_json

REPOSITORY = Path(__file__).parent.parent
MODULES: dict[Program, str] = {"ours": "benchmarks.ours", "lightning": "benchmarks.peer_lightning"}
PATIENCE_S = 3600.0
POLL_S = 0.02
BUSY_S = 0.3


class Bench:
    """Runs measurements on a device, with a folder for images, answers and logs.

    The images stay for the next benchmark; `tidy` removes answers and logs.
    """

    def __init__(self, folder: Path, *, device: str, cores: int, epochs: int) -> None:
        self.folder = folder
        self.device = device
        self.cores = cores
        self.epochs = epochs
        folder.mkdir(parents=True, exist_ok=True)
        self.answers = Path(tempfile.mkdtemp(prefix="answers-", dir=folder)).absolute()
        self.count = 0
        self.busy_cores = 0.0

    def draw(self, dataset: str, images: int) -> None:
        """Draw `images` training and as many validation images, unless they exist."""
        manifest = read_manifest(self._data(images), dataset)
        if manifest is None:
            archive = synthesize(dataset, self._data(images) / "archives", train=images, val=images)
            prepare(dataset, str(archive), self._data(images), unofficial=True)
            archive.unlink()

    def measure(self, shape: Shape, side: Side, images: int, *, drawn: int) -> Measurement:
        """Measure one side alone on the device, with all cores, over the first `images` of `drawn`.

        Fewer images get more epochs, so that the time stays the same.
        """
        assignment = self._assignment(shape, side, images, drawn, self.cores, None)
        return self._run([assignment.model_copy(update={"epochs": self.epochs * drawn // images})])[0]

    def measure_beside(self, shape: Shape, side: Side, images: int, processes: int) -> list[Measurement]:
        """Measure several processes at once, which share the cores and start their epochs together."""
        gate = self.answers / f"gate-{self.count}"
        gate.mkdir()
        threads = max(self.cores // processes, 1)
        return self._run([self._assignment(shape, side, images, images, threads, gate)] * processes, gate)

    def tidy(self) -> None:
        """Remove answers and logs. Not called after a failure, so that they can be read."""
        shutil.rmtree(self.answers)

    def _data(self, images: int) -> Path:
        return self.folder / f"images-{images}"

    def _assignment(
        self, shape: Shape, side: Side, images: int, drawn: int, threads: int, gate: Path | None
    ) -> Assignment:
        return Assignment(
            shape=shape,
            side=side,
            images=images,
            epochs=self.epochs,
            threads=threads,
            device=self.device,
            data=self._data(drawn).absolute(),
            launched=0.0,
            gate=gate,
        )

    def _run(self, assignments: Sequence[Assignment], gate: Path | None = None) -> list[Measurement]:
        self.busy_cores = max(self.busy_cores, cores_in_use())
        started: list[tuple[subprocess.Popen[bytes], Path]] = []
        try:
            for assignment in assignments:
                answer = self.answers / f"{self.count}.json"
                self.count += 1
                started.append((_start(assignment, answer), answer))
            _wait([process for process, _ in started], gate)
        finally:
            for process, _ in started:
                process.kill()
                process.wait()
        return [_read(process.returncode, answer) for process, answer in started]


def cores_in_use() -> float:
    """Measure how many of this process's cores others use; it is idle meanwhile."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    shares = psutil.cpu_percent(interval=BUSY_S, percpu=True)
    return float(sum(shares[core] for core in mine if core < len(shares))) / 100


def look(device: str, folder: Path) -> Machine:
    """Describe the machine and which precision "auto" chooses on it."""
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder / "machine.json"
    call = [sys.executable, "-m", "benchmarks.probe", device, str(answer)]
    process = subprocess.run(call, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    machine = read_json(answer, Machine) if process.returncode == 0 else None
    if machine is None:
        raise BenchmarkError((process.stderr.strip().splitlines() or ["the machine could not be examined"])[-1])
    return machine


def environment(**more: str) -> dict[str, str]:
    """Return a child's environment, with this repository first on its path."""
    path = filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **more}


def _start(assignment: Assignment, answer: Path) -> "subprocess.Popen[bytes]":
    launched = assignment.model_copy(update={"launched": time.monotonic()})  # the clock is shared by all processes
    with answer.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", MODULES[assignment.side.program], launched.model_dump_json(), str(answer)],
            env=environment(OMP_NUM_THREADS=str(assignment.threads)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _wait(processes: "Sequence[subprocess.Popen[bytes]]", gate: Path | None) -> None:
    """Wait for all processes, or until one fails; open the gate once all have reached it."""
    deadline = time.monotonic() + PATIENCE_S
    while any(process.poll() is None for process in processes):
        if any(process.returncode for process in processes):
            return
        if gate and len(list(gate.glob("ready-*"))) == len(processes):
            (gate / "go").touch()
            gate = None
        if time.monotonic() > deadline:
            raise BenchmarkError(f"a measurement took longer than {PATIENCE_S / 3600:.0f} h; try --images 512")
        time.sleep(POLL_S)


def _read(code: int, answer: Path) -> Measurement:
    measurement = read_json(answer, Measurement) if code == 0 else None
    if measurement is None:
        log = answer.with_suffix(".log")
        lines = log.read_text(errors="replace").strip().splitlines()
        raise BenchmarkError(
            f"a measured process ended with code {code}: {lines[-1] if lines else 'no output'}; see {log}"
        )
    return measurement
