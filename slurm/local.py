"""The executor that starts worker processes on this machine, each a `python -m trainer --bundle`.

All workers of a submission get the same runs; each takes what no other has taken, so none idles while there is work.
Workers outlive the shell that started them.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from slurm.executor import Keep, Place, Started
from slurm.jobs import JobView, Phase, Submission, SubmissionFolder, WorkerRecord
from slurm.machine import gpu_count
from slurm.workers import Process, Workers
from trainer.records.attempt import ExitCode
from trainer.records.files import read_json
from trainer.records.process import describe, is_alive
from trainer.records.run import Bundle

IN_GOOD_ORDER = (ExitCode.DONE.value, ExitCode.INTERRUPTED.value)


class Local:
    """Workers in sessions of their own: Ctrl-C reaches the submitting process alone, which then asks them."""

    name = "local"
    look_again_s = 0.5

    def __init__(self, workers: int = 1, gpus_per_run: int = 1) -> None:
        self.count = workers
        self.gpus_per_run = gpus_per_run
        self._workers: Workers | None = None  # those that this process has started
        self._started: dict[int, tuple[Process, WorkerRecord]] = {}

    def unusable(self, folder: Path) -> str | None:
        return None

    def scripts(self, submission: Submission, folder: SubmissionFolder) -> list[str]:
        shown = []
        for number in range(1, self.count + 1):
            seen = [f"{name}={value}" for name, value in self._gpus(number).items()]
            shown.append(shlex.join([*(["env", *seen] if seen else []), *_command(folder, number)]) + "\n")
        return shown

    def start(self, submission: Submission, folder: SubmissionFolder, keep: Keep) -> Started:
        bundle = read_json(folder.bundle(), Bundle)
        assert bundle is not None
        self._workers = Workers(bundle, 0)
        return Started(self._add(submission, folder, keep, self.count), [])

    def look(self, place: Place, folder: SubmissionFolder) -> JobView | None:
        """Where its workers live, a run is theirs: which of them has it, its attempt tells."""
        jobs = place.submission.jobs
        living = any(self._alive(job) is not False for job in jobs)
        starting = not jobs and place.submitting
        return JobView(Phase.RUNNING) if living or starting else None

    def cancel(self, places: Sequence[Place], wanted: Collection[str]) -> int:
        return 0  # workers find the runs' requests, and take what is left

    def alive(self, submission: Submission) -> bool | None:
        return any(self._alive(job) for job in submission.jobs)

    def see_to(self, submission: Submission, folder: SubmissionFolder, keep: Keep) -> list[str]:
        """Also of a killed worker's run: it is left interrupted, and no worker of this submission touches it again."""
        if self._workers is None:
            return []
        lines = []
        for ended in self._workers.ended():
            _, job = self._started[ended.worker.pid]
            if ended.words is not None:
                held = f" while it trained {ended.held[0]}" if ended.held else ""
                lines.append(f"worker {job.id} was killed{held}")
                if ended.held and self._workers.unfinished():
                    submission = self._add(submission, folder, keep, 1)
            elif ended.code not in IN_GOOD_ORDER and not self._failed_a_run(job):
                log = _log(folder, _number(job))
                lines.append(f"worker {job.id} ended with exit code {ended.code}; see {log}")
        return lines

    def stop(self, submission: Submission) -> bool:
        for job in submission.jobs:
            self._signal(job, signal.SIGTERM)
        return True

    def kill(self, submission: Submission) -> None:
        for job in submission.jobs:
            self._signal(job, signal.SIGKILL)

    def _add(self, submission: Submission, folder: SubmissionFolder, keep: Keep, count: int) -> Submission:
        taken = len(list(folder.array().glob("worker-*.log")))
        jobs = [self._start_one(folder, taken + index + 1) for index in range(count)]
        submission = submission.model_copy(update={"jobs": [*submission.jobs, *jobs]})
        keep(submission)
        return submission

    def _start_one(self, folder: SubmissionFolder, number: int) -> WorkerRecord:
        assert self._workers is not None
        with _log(folder, number).open("ab") as log:
            process = subprocess.Popen(
                _command(folder, number),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._gpus(number)},
                start_new_session=True,
            )
        record = WorkerRecord(id=_job_id(folder, number), process=describe(process.pid))
        self._workers.running.append(process)
        self._started[process.pid] = process, record
        return record

    def _gpus(self, number: int) -> dict[str, str]:
        """The GPUs a worker sees, unless the user has chosen."""
        gpus = gpu_count()
        if not gpus or "CUDA_VISIBLE_DEVICES" in os.environ:
            return {}
        return {"CUDA_VISIBLE_DEVICES": visible_gpus(number, self.gpus_per_run, gpus)}

    def _alive(self, job: WorkerRecord) -> bool | None:
        """Tell whether a worker still runs; None for one on another host."""
        ours = self._started.get(job.process.pid)
        if ours is not None:
            return ours[0].poll() is None  # and takes notice of its end, so that no zombie stays
        return is_alive(job.process)

    def _signal(self, job: WorkerRecord, number: signal.Signals) -> None:
        if self._alive(job):
            with contextlib.suppress(ProcessLookupError):
                os.kill(job.process.pid, number)

    def _failed_a_run(self, job: WorkerRecord) -> bool:
        """Tell whether a worker recorded a failure, which says more than its exit code."""
        assert self._workers is not None
        newest = [record for _, record in self._workers.newest_attempts()]
        return any(record.job == job.id and record.outcome == "failed" for record in newest)


def visible_gpus(number: int, per_run: int, gpus: int) -> str:
    """List the GPUs of a worker, counted from 1, as CUDA_VISIBLE_DEVICES does; the workers take turns."""
    first = (number - 1) * per_run
    return ",".join(str((first + index) % gpus) for index in range(min(per_run, gpus)))


def _command(folder: SubmissionFolder, number: int) -> list[str]:
    bundle = str(folder.bundle().resolve())
    return [sys.executable, "-m", "trainer", "--bundle", bundle, "--job", _job_id(folder, number)]


def _job_id(folder: SubmissionFolder, number: int) -> str:
    return f"{folder.token}-{number}"


def _number(job: WorkerRecord) -> int:
    return int(job.id.rpartition("-")[2])


def _log(folder: SubmissionFolder, number: int) -> Path:
    return folder.array() / f"worker-{number}.log"
