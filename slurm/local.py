"""The executor that starts worker processes on this machine, each a `trainer --bundle`, with its submission's code.

All workers of a submission get the same runs; each takes what no other has taken, so none idles while there is work.
Workers outlive the shell that started them.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from slurm.code import snapshot
from slurm.executor import Job, Keep, Look, Report, Started
from slurm.interrupts import counted
from slurm.jobs import JobView, Phase, Submission, SubmissionFolder, WorkerRecord
from slurm.machine import gpus_here
from slurm.workers import Ended, Workers
from trainer.records.attempt import ExitCode
from trainer.records.code import module_command
from trainer.records.files import read_json
from trainer.records.process import describe, is_alive
from trainer.records.run import Bundle

POLL_S = 0.5
POLL_SHARE = 20  # looking takes at most a twentieth of a core from the workers, however many runs there are
STOP_S = 60.0  # what is left of a short epoch, and a checkpoint on a slow disk
IN_GOOD_ORDER = (ExitCode.DONE.value, ExitCode.INTERRUPTED.value)


class Local:
    """Workers in sessions of their own: Ctrl-C reaches the submitting process alone, which then asks them.

    folder holds the submissions.
    """

    name = "local"
    notes: Sequence[str] = ()

    def __init__(self, folder: Path, workers: int = 1, gpus_per_run: int = 1) -> None:
        self.folder = folder
        self.count = workers
        self.gpus_per_run = gpus_per_run
        self._crew: _Crew | None = None  # the workers that this process has started

    def unusable(self) -> str | None:
        return None

    def scripts(self, submission: Submission) -> list[str]:
        folder = SubmissionFolder(self.folder / submission.token)
        shown = []
        for number in range(1, self.count + 1):
            seen = [f"{name}={value}" for name, value in _gpus(number, self.gpus_per_run).items()]
            shown.append(shlex.join([*(["env", *seen] if seen else []), *_command(folder, number, submission)]) + "\n")
        return shown

    def start(self, submission: Submission, keep: Keep) -> Started:
        self._crew = _Crew(SubmissionFolder(self.folder / submission.token), submission, keep, self.gpus_per_run)
        self._crew.add(self.count)
        return Started(self._crew.submission)

    def look(
        self,
        submissions: Sequence[Submission],
        submitting: Mapping[str, bool | None],
        done: Collection[str],
        *,
        max_age_s: float,
    ) -> list[Job]:
        """Where its workers live, a run is theirs: which of them has it, its attempt tells."""
        jobs = []
        for submission in submissions:
            if all(run_id in done for run_id in submission.runs):
                continue
            starting = not submission.jobs and submitting[submission.token]
            if starting or any(is_alive(worker.process) is not False for worker in submission.jobs):
                jobs.append(Job(self.name, submission.token, submission.runs, JobView(Phase.RUNNING)))
        return jobs

    def cancel(self, jobs: Sequence[Job]) -> int:
        return 0  # workers find the runs' requests, and take what is left

    def wait(self, look: Look, report: Report) -> bool:
        """The first Ctrl-C asks the workers to save and end, the second ends them at once."""
        if self._crew is None:  # nothing was started
            return True
        workers, asked_at = self._crew.workers, None
        with counted() as interrupts:
            while True:
                looked_at = time.monotonic()
                look()
                if interrupts.count and asked_at is None:
                    asked_at = time.monotonic()
                    report("stopping: the workers save and end, within seconds; Ctrl-C again ends them at once")
                    workers.tell(signal.SIGTERM)
                if asked_at is not None and (interrupts.count > 1 or time.monotonic() - asked_at > STOP_S):
                    workers.tell(signal.SIGKILL)
                ended = not workers.any_alive()
                if ended:  # the last may have ended after the look
                    look()
                if asked_at is None:
                    workers.end_stuck()
                    for line in self._crew.see_to_ended():
                        report(line)
                if ended and not workers.any_alive():
                    return asked_at is None
                time.sleep(max(POLL_S, POLL_SHARE * (time.monotonic() - looked_at)))


class _Crew:
    """The workers of a submission, as this process starts and replaces them; its record names each."""

    def __init__(self, folder: SubmissionFolder, submission: Submission, keep: Keep, gpus_per_run: int) -> None:
        bundle = read_json(folder.bundle(), Bundle)
        assert bundle is not None, "a submission's bundle is written before its workers start"
        self.folder = folder
        self.submission = submission
        self.keep = keep
        self.gpus_per_run = gpus_per_run
        self.workers = Workers(bundle, 0)

    def add(self, count: int) -> None:
        """Start workers, then write down that there are more."""
        for _ in range(count):
            started = self._start_one(len(self.submission.jobs) + 1)
            self.submission = self.submission.model_copy(update={"jobs": [*self.submission.jobs, started]})
        self.keep(self.submission)

    def see_to_ended(self) -> list[str]:
        """Say which workers ended and how, and replace those that were killed while runs wait.

        The run it held is left interrupted, and no worker of this submission touches it again, so this ends.
        """
        return [line for ended in self.workers.ended() if (line := self._see_to(ended))]

    def _see_to(self, ended: Ended) -> str | None:
        job = next(job for job in reversed(self.submission.jobs) if job.process.pid == ended.worker.pid)
        if ended.words is not None:
            if ended.took and self.workers.unfinished():
                self.add(1)
            how = ended.words if ended.words.startswith("ended") else "killed"
            return f"worker {job.id} was {how}" + (f" while it trained {ended.held[0]}" if ended.held else "")
        if ended.code in IN_GOOD_ORDER or self._failed_a_run(job):
            return None
        return f"worker {job.id} ended with exit code {ended.code}; see {_log(self.folder, _number(job))}"

    def _start_one(self, number: int) -> WorkerRecord:
        with _log(self.folder, number).open("ab") as log:
            process = subprocess.Popen(
                _command(self.folder, number, self.submission),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **_gpus(number, self.gpus_per_run)},
                start_new_session=True,
            )
        self.workers.running.append(process)
        return WorkerRecord(id=_job_id(self.folder, number), process=describe(process.pid))

    def _failed_a_run(self, job: WorkerRecord) -> bool:
        """Tell whether a worker recorded a failure, which says more than its exit code."""
        newest = [record for _, record in self.workers.newest_attempts()]
        return any(record.job == job.id and record.outcome == "failed" for record in newest)


def _gpus(number: int, per_run: int) -> dict[str, str]:
    gpus = gpus_here()
    return {"CUDA_VISIBLE_DEVICES": share_of_gpus(number, per_run, gpus)} if gpus else {}


def share_of_gpus(number: int, per_run: int, gpus: Sequence[str]) -> str:
    """List the GPUs of a worker, counted from 1, as CUDA_VISIBLE_DEVICES does; the workers take turns."""
    first = (number - 1) * per_run
    return ",".join(gpus[(first + index) % len(gpus)] for index in range(min(per_run, len(gpus))))


def _command(folder: SubmissionFolder, number: int, submission: Submission) -> list[str]:
    bundle = folder.bundle().resolve()
    code = submission.code()
    frozen = snapshot(bundle.parents[2], code) if code else None
    return [*module_command("trainer", frozen), "--bundle", str(bundle), "--job", _job_id(folder, number)]


def _job_id(folder: SubmissionFolder, number: int) -> str:
    return f"{folder.token}-{number}"


def _number(job: WorkerRecord) -> int:
    return int(job.id.rpartition("-")[2])


def _log(folder: SubmissionFolder, number: int) -> Path:
    return folder.array() / f"worker-{number}.log"
