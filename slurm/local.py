"""The local executor: worker processes on this machine, each a `python -m trainer --bundle`.

All workers of a submission get the same runs; each takes what no other has taken, so none idles while there is work.
Workers outlive the shell that started them.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from slurm.jobs import WorkerRecord
from slurm.machine import gpu_count
from trainer.records.process import describe, is_alive


class LocalExecutor:
    """Starts workers in sessions of their own: Ctrl-C reaches the submitting process alone, which then asks them."""

    name = "local"

    def __init__(self, gpus_per_run: int = 1) -> None:
        self.gpus_per_run = gpus_per_run
        self._started: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, bundle: Path, count: int) -> Sequence[WorkerRecord]:
        """Start workers on a bundle file; their output goes to worker-N.log beside it."""
        taken = len(list(bundle.parent.glob("worker-*.log")))
        return [self._start_one(bundle, taken + index + 1) for index in range(count)]

    def alive(self, job: WorkerRecord) -> bool | None:
        """Tell whether a worker still runs; None for one on another host."""
        ours = self._started.get(job.process.pid)
        if ours is not None:
            return ours.poll() is None  # and takes notice of its end, so that no zombie stays
        return is_alive(job.process)

    def exit_code(self, job: WorkerRecord) -> int | None:
        """Give the exit code of an ended worker that this object started, negative for a signal; None otherwise."""
        ours = self._started.get(job.process.pid)
        return ours.poll() if ours else None

    def log(self, bundle: Path, job: WorkerRecord) -> Path:
        """Give the file of a worker's output."""
        return bundle.parent / f"worker-{job.id.rpartition('-')[2]}.log"

    def stop(self, job: WorkerRecord) -> None:
        """Ask a worker to finish its step and end."""
        self._signal(job, signal.SIGTERM)

    def kill(self, job: WorkerRecord) -> None:
        """End a worker at once; its run goes on from the checkpoint another time."""
        self._signal(job, signal.SIGKILL)

    def _start_one(self, bundle: Path, number: int) -> WorkerRecord:
        job_id = f"{bundle.parent.parent.name}-{number}"
        environment = dict(os.environ)
        gpus = gpu_count()
        if gpus:
            environment.setdefault("CUDA_VISIBLE_DEVICES", visible_gpus(number, self.gpus_per_run, gpus))
        command = [sys.executable, "-m", "trainer", "--bundle", str(bundle.resolve()), "--job", job_id]
        with (bundle.parent / f"worker-{number}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._started[process.pid] = process
        return WorkerRecord(id=job_id, process=describe(process.pid))

    def _signal(self, job: WorkerRecord, number: signal.Signals) -> None:
        if self.alive(job):
            with contextlib.suppress(ProcessLookupError):
                os.kill(job.process.pid, number)


def visible_gpus(number: int, per_run: int, gpus: int) -> str:
    """Give the GPUs of a worker, counted from 1, as CUDA_VISIBLE_DEVICES lists them; the workers take turns."""
    first = (number - 1) * per_run
    return ",".join(str((first + index) % gpus) for index in range(min(per_run, gpus)))
