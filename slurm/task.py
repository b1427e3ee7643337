"""`python -m slurm.task BUNDLE`, on the compute node: execute one array task's runs, and go on when Slurm interrupts.

This process trains nothing. It starts the trainers, passes signals on, says how one that was killed ended, and hands
the job back to the queue when the time limit comes before the last run is done. Its exit code is what Slurm records.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from slurm.commands import SlurmError, call
from slurm.jobs import WITHDRAWN
from trainer.claim import close_dead
from trainer.files import RecordError, read_json, write_json
from trainer.processes import job_name, restarts
from trainer.records import AttemptRecord, Bundle, Cause, ExitCode, RunFolder, RunSpec

POLL_S = 0.2


class Task:
    """One array task: its runs, and the trainers at work on them."""

    def __init__(self, bundle_file: Path, bundle: Bundle, index: int) -> None:
        self.bundle_file = bundle_file
        self.bundle = bundle
        self.index = index
        self.workers: list[subprocess.Popen[bytes]] = []
        self.signal: signal.Signals | None = None
        self.failed = False
        self.oom_kills = count_oom_kills()

    @property
    def runs(self) -> Sequence[RunSpec]:
        return self.bundle.tasks[self.index]

    def run(self) -> int:
        """Work until the runs are done or a signal ends it; give the exit code."""
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)
        for _ in range(min(self.bundle.workers, len(self.runs))):
            self._start()
        passed_on = False
        while self.workers:
            if self.signal and not passed_on:
                passed_on = True
                for worker in self.workers:
                    worker.send_signal(self.signal)
            for worker in [worker for worker in self.workers if worker.poll() is not None]:
                self.workers.remove(worker)
                self._see_to(worker)
            time.sleep(POLL_S)
        if self.signal and self._unfinished() and self._may_go_on():
            self._go_on_later()
        if self.signal:
            return int(ExitCode.INTERRUPTED)
        return int(ExitCode.FAILED if self.failed else ExitCode.DONE)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)

    def _start(self) -> None:
        command = [sys.executable, "-u", "-m", "trainer", "--bundle", str(self.bundle_file), "--task", str(self.index)]
        self.workers.append(subprocess.Popen([*command, "--job", job_name()], stdin=subprocess.DEVNULL))

    def _see_to(self, worker: subprocess.Popen[bytes]) -> None:
        """Take notice of a trainer's end; one that was killed has its run closed, and another takes the rest."""
        code: int = worker.returncode
        if code not in (ExitCode.DONE.value, ExitCode.INTERRUPTED.value):
            self.failed = True
        if code >= 0:
            return
        kills = count_oom_kills()
        out_of_memory = kills > self.oom_kills
        self.oom_kills = kills
        name = signal.Signals(-code).name
        for run, record in self._newest_attempts():
            if record.process.pid == worker.pid and record.outcome is None:
                folder = RunFolder(self.bundle.runs_folder / run.run.id)
                if out_of_memory:
                    words = "the node's kernel killed it: the job's memory was full"
                    close_dead(folder, record.number, outcome="failed", cause=Cause.HOST_OOM, message=words)
                else:
                    close_dead(folder, record.number, cause=Cause.KILLED, message=f"killed by {name}")
                print(f"{run.run.id}: killed by {name}{', out of memory' if out_of_memory else ''}", flush=True)
        if self._unfinished() and not self.signal:
            self._start()

    def _may_go_on(self) -> bool:
        """Tell whether the signal leaves the job a future: the warning before its time limit, or a preemption's grace.

        A job that ends itself within the grace time counts as failed, and Slurm does not requeue it (22.05). One that
        was cancelled, or has reached its limit, is no longer running when it is told.
        """
        if self.signal is signal.SIGUSR2:
            return True
        try:
            state = call(["squeue", "--noheader", "--jobs", os.environ["SLURM_JOB_ID"], "--format", "%T"])
        except SlurmError:
            return False
        return state.strip() == "RUNNING"

    def _unfinished(self) -> list[str]:
        """List the runs that this job could still bring further."""
        attempts = {run.run.id: record for run, record in self._newest_attempts()}
        left = []
        for run in self.runs:
            folder = RunFolder(self.bundle.runs_folder / run.run.id)
            record = attempts.get(run.run.id)
            ours = record is not None and record.submission == self.bundle.submission
            if folder.result.exists() or folder.cancel.exists():
                continue
            if ours and record is not None and not self._interrupted_by_signal(record):
                continue
            left.append(run.run.id)
        return left

    def _interrupted_by_signal(self, record: AttemptRecord) -> bool:
        return record.outcome == "interrupted" and self.signal is not None

    def _newest_attempts(self) -> list[tuple[RunSpec, AttemptRecord]]:
        found = []
        for run in self.runs:
            folder = RunFolder(self.bundle.runs_folder / run.run.id)
            numbers = folder.attempt_numbers()
            record = _read_attempt(folder, numbers[-1]) if numbers else None
            if record is not None:
                found.append((run, record))
        return found

    def _go_on_later(self) -> None:
        """Put this job back into the queue, to go on from the checkpoints; not with runs that came no further."""
        stuck = [(run, record) for run, record in self._newest_attempts() if self._made_nothing_twice(run, record)]
        if stuck:
            for run, record in stuck:
                folder = RunFolder(self.bundle.runs_folder / run.run.id)
                words = "its time limit came twice before a checkpoint; give it more time with 'sweep retry'"
                changes = {"outcome": "failed", "cause": Cause.TIMEOUT, "message": words}
                write_json(folder.attempt(record.number), record.model_copy(update=changes))
                print(f"{run.run.id}: {words}", flush=True)
            if not self._unfinished():
                return
        try:
            call(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]])
            print("the time limit is near, or another job goes first: back into the queue", flush=True)
        except SlurmError as error:
            print(f"could not go back into the queue ({error}); 'sweep submit' continues", flush=True)

    def _made_nothing_twice(self, run: RunSpec, record: AttemptRecord) -> bool:
        """Tell whether this job and its former self both ended without a checkpoint to go on from."""
        if record.submission != self.bundle.submission or record.restarts == 0 or record.number == 1:
            return False
        before = _read_attempt(RunFolder(self.bundle.runs_folder / run.run.id), record.number - 1)
        return before is not None and before.job == record.job and before.start_epoch == record.start_epoch


def count_oom_kills(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Count the processes of this job's control group that the kernel has killed for memory; 0 where it does not say.

    memory.events is control groups' version 2, memory.oom_control version 1.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return 0
    kills = 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            candidates = [root / path.lstrip("/") / "memory.events"]
        elif "memory" in controllers.split(","):
            candidates = [root / "memory" / path.lstrip("/") / "memory.oom_control"]
        else:
            continue
        for file in candidates:
            try:
                found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
            except OSError:
                continue
            kills = max(kills, int(found.group(1)) if found else 0)
    return kills


def _read_attempt(folder: RunFolder, number: int) -> AttemptRecord | None:
    try:
        return read_json(folder.attempt(number), AttemptRecord)
    except RecordError:
        return None


def main(arguments: Sequence[str]) -> int:
    """Execute the task that Slurm's environment names."""
    bundle_file = Path(arguments[0])
    try:
        bundle = read_json(bundle_file, Bundle)
    except RecordError as error:
        print(f"slurm.task: {error}", flush=True)
        return ExitCode.USAGE.value
    if bundle is None:
        print(f"slurm.task: {bundle_file}: no such file, seen from {os.uname().nodename}", flush=True)
        return ExitCode.USAGE.value
    if (bundle_file.parent / WITHDRAWN).exists():
        print("this array was given up before it began; its runs are in another", flush=True)
        return ExitCode.DONE.value
    index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    if restarts():
        print(f"started anew by Slurm, {restarts()} times now", flush=True)
    return Task(bundle_file, bundle, index).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
