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
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from slurm.commands import SlurmError, call
from slurm.cores import core_shares, on_cores, usable_cores
from slurm.jobs import WITHDRAWN
from slurm.limits import parse_minutes
from slurm.mps import multi_process_service
from trainer.records.attempt import AttemptRecord, Cause, ExitCode
from trainer.records.checkpoint_file import epochs_in, list_checkpoints
from trainer.records.claim import close_dead
from trainer.records.files import RecordError, read_json, write_json
from trainer.records.process import job_name, restarts
from trainer.records.run import Bundle, RunFolder, RunSpec

POLL_S = 0.2
NEAR_LIMIT_MIN = 3  # twice the time that a job is warned before its limit


class Task:
    """One array task: its runs, and the trainers at work on them."""

    def __init__(self, bundle_file: Path, bundle: Bundle, index: int) -> None:
        self.bundle_file = bundle_file
        self.bundle = bundle
        self.index = index
        self.workers: list[subprocess.Popen[bytes]] = []
        self.abreast = min(bundle.workers, len(self.runs))
        self.free_cores = core_shares(usable_cores(), self.abreast, bundle.options.threads)
        self.cores: dict[int, set[int]] = {}  # by the pid of the worker that has them
        self.environment = dict(os.environ)
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
        shared = self.bundle.mps and self.abreast > 1
        with multi_process_service() if shared else nullcontext(self.environment) as self.environment:
            self._work()
        if self.signal and self._unfinished():
            self._go_on_later()
        if self.signal:
            return int(ExitCode.INTERRUPTED)
        return int(ExitCode.FAILED if self.failed else ExitCode.DONE)

    def _work(self) -> None:
        """Start the trainers, and stay until the last has ended."""
        for _ in range(self.abreast):
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

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # A warning counts however late: what ends a job for another's sake may overtake it (preempt_send_user_signal).
        if self.signal is None or number == signal.SIGUSR2:
            self.signal = signal.Signals(number)

    def _start(self) -> None:
        command = [sys.executable, "-u", "-m", "trainer", "--bundle", str(self.bundle_file), "--task", str(self.index)]
        cores = self.free_cores.pop(0) if self.free_cores else None
        with on_cores(cores):
            worker = subprocess.Popen([*command, "--job", job_name()], stdin=subprocess.DEVNULL, env=self.environment)
        if cores:
            self.cores[worker.pid] = cores
        self.workers.append(worker)

    def _see_to(self, worker: subprocess.Popen[bytes]) -> None:
        """Take notice of a trainer's end; one that was killed has its run closed, and another takes the rest."""
        if worker.pid in self.cores:
            self.free_cores.append(self.cores.pop(worker.pid))
        code: int = worker.returncode
        if code not in (ExitCode.DONE.value, ExitCode.INTERRUPTED.value):
            self.failed = True
        if code >= 0:
            return
        kills = count_oom_kills()
        out_of_memory = kills > self.oom_kills
        self.oom_kills = kills
        words = f"killed by {signal.Signals(-code).name}"
        if out_of_memory:
            words += " of the node's kernel (oom-kill: the job's memory was full)"
        held = [(run, record) for run, record in self._newest_attempts() if _is_held_by(record, worker.pid)]
        for run, record in held:
            folder = RunFolder(self.bundle.runs_folder / run.run.id)
            if out_of_memory:
                close_dead(folder, record.number, outcome="failed", cause=Cause.HOST_OOM, message=words)
            else:
                close_dead(folder, record.number, message=words)
            print(f"{run.run.id}: {words}", flush=True)
        if not held:  # another would fare no better
            print(f"a trainer was {words} before it took a run", flush=True)
        elif self._unfinished() and not self.signal:
            self._start()

    def _unfinished(self) -> list[str]:
        """List the runs that this job could still bring further."""
        attempts = {run.run.id: record for run, record in self._newest_attempts()}
        left = []
        for run in self.runs:
            folder = RunFolder(self.bundle.runs_folder / run.run.id)
            record = attempts.get(run.run.id)
            ours = record is not None and record.submission == self.bundle.submission
            # Within one life of the job a run is attempted once; the next takes up what a signal cut off.
            over = ours and record is not None and (record.outcome != "interrupted" or self.signal is None)
            if not (over or folder.result.exists() or folder.cancel.exists()):
                left.append(run.run.id)
        return left

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
        """Put this job back into the queue, to go on from the checkpoints, if the signal leaves it a future.

        That is so after the warning before its time limit and in a preemption's grace: a job that ends itself there
        counts as failed, and Slurm does not requeue it (22.05). One that was cancelled, or has reached its limit, is no
        longer running when it is told.
        """
        state, left_min = self._standing()
        if self.signal is not signal.SIGUSR2 and state != "RUNNING":
            return
        if left_min is not None and left_min <= NEAR_LIMIT_MIN:
            self._give_up_stuck()
        if not self._unfinished():
            return
        try:
            call(["scontrol", "requeue", job_name()])
            print("the time limit is near, or another job goes first: back into the queue", flush=True)
        except SlurmError as error:
            print(f"could not go back into the queue ({error}); 'sweep submit' continues", flush=True)

    def _standing(self) -> tuple[str | None, int | None]:
        """Ask Slurm for this job's state and the minutes it has left; None for what it does not say."""
        try:
            answer = call(["squeue", "--noheader", "--jobs", job_name(), "--format", "%T|%L"])
            state, _, left = answer.strip().partition("|")
            return state, parse_minutes(left)
        except (SlurmError, ValueError):
            return None, None

    def _give_up_stuck(self) -> None:
        """Close the runs that all the time there is brings no further: they would come back for ever."""
        for run, record in self._newest_attempts():
            if self._made_nothing_twice(run, record):
                folder = RunFolder(self.bundle.runs_folder / run.run.id)
                words = "its time limit came twice before a checkpoint; give it more time with 'sweep retry'"
                changes = {"outcome": "failed", "cause": Cause.TIMEOUT, "message": words}
                write_json(folder.attempt(record.number), record.model_copy(update=changes))
                print(f"{run.run.id}: {words}", flush=True)

    def _made_nothing_twice(self, run: RunSpec, record: AttemptRecord) -> bool:
        """Tell whether this job and its former self both ended without a checkpoint to go on from."""
        if record.submission != self.bundle.submission or record.restarts == 0 or record.number == 1:
            return False
        folder = RunFolder(self.bundle.runs_folder / run.run.id)
        before = _read_attempt(folder, record.number - 1)
        if before is None or before.job != record.job or before.start_epoch != record.start_epoch:
            return False
        saved = list_checkpoints(folder.checkpoints)
        return not saved or epochs_in(saved[0]) <= record.start_epoch


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


def _is_held_by(record: AttemptRecord, pid: int) -> bool:
    return record.outcome is None and record.process.pid == pid


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
