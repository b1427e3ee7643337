"""Trainers at work on the runs of one task, looked after: told of signals, their runs closed when they are killed.

Serves the job of an array on its node, and whoever waits for local workers.
"""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trainer.records.alive import heartbeat, stalled_s
from trainer.records.attempt import AttemptRecord, Cause
from trainer.records.claim import close_dead, cut_off_again
from trainer.records.files import RecordError, read_json
from trainer.records.run import Bundle, RunFolder

Process = subprocess.Popen[bytes]
LOOK_S = 15.0  # between looks for a trainer that is stuck
STACK_S = 1.0  # for it to print where it stands


class Ended(NamedTuple):
    """A worker that has ended. words: how, if it was killed; held: the runs it was at then; took: had it had any?"""

    worker: Process
    words: str | None = None
    held: tuple[str, ...] = ()
    took: bool = True

    @property
    def code(self) -> int:
        return int(self.worker.returncode)


class Workers:
    """The processes that share a task's runs; each takes what no other has taken."""

    def __init__(self, bundle: Bundle, task: int) -> None:
        self.bundle = bundle
        self.runs = [spec.run.id for spec in bundle.tasks[task]]
        self.running: list[Process] = []
        self._oom_kills = count_oom_kills()
        self._stuck: dict[int, str] = {}  # how those that were ended for it were stuck, by pid
        self._looked = time.monotonic()

    def any_alive(self) -> bool:
        return any(worker.poll() is None for worker in self.running)

    def tell(self, number: signal.Signals) -> None:
        for worker in self.running:
            worker.send_signal(number)

    def end_stuck(self) -> None:
        """Kill the workers whose run shows no sign any more: others wait behind it, and the job's time runs."""
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        working = {worker.pid: worker for worker in self.running}
        for run_id, record in self.newest_attempts():
            worker = working.get(record.process.pid)
            if worker is None or record.outcome is not None:
                continue
            silence_s = stalled_s(record, heartbeat(self.folder(run_id), record.number), self.bundle.options.stall_s)
            if silence_s is not None:
                self._stuck[worker.pid] = f"ended, for it had shown no sign for {silence_s / 60:.0f} min"
                worker.send_signal(signal.SIGUSR1)
                time.sleep(STACK_S)
                worker.kill()

    def ended(self) -> list[Ended]:
        """Take notice of those that have ended, and close the runs that killed ones held."""
        gone = [worker for worker in self.running if worker.poll() is not None]
        self.running = [worker for worker in self.running if worker not in gone]
        return [self._close(worker) if worker.returncode < 0 else Ended(worker) for worker in gone]

    def unfinished(self, *, in_next_life: bool = False) -> list[str]:
        """List the runs that could still be brought further: within one life of the job a run is attempted once.

        in_next_life: a job that starts anew takes up what a signal cut off in this one.
        """
        attempts = dict(self.newest_attempts())
        left = []
        for run_id in self.runs:
            folder, record = self.folder(run_id), attempts.get(run_id)
            ours = record is not None and record.submission == self.bundle.submission
            over = ours and record is not None and (record.outcome != "interrupted" or not in_next_life)
            if not (over or folder.result.exists() or folder.cancel.exists()):
                left.append(run_id)
        return left

    def have_begun(self) -> bool:
        """Whether one of them has taken a run."""
        pids = {worker.pid for worker in self.running}
        return any(record.process.pid in pids for _, record in self.newest_attempts())

    def may_go_on(self) -> set[str]:
        """Name the jobs of this submission that have begun a run, and take it up again where they are started anew."""
        return {
            record.job
            for _, record in self.newest_attempts()
            if record.submission == self.bundle.submission and record.outcome in (None, "interrupted")
        }

    def newest_attempts(self) -> Iterator[tuple[str, AttemptRecord]]:
        for run_id in self.runs:
            folder = self.folder(run_id)
            numbers = folder.attempt_numbers()
            record = read_attempt(folder, numbers[-1]) if numbers else None
            if record is not None:
                yield run_id, record

    def folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.bundle.runs_folder / run_id)

    def _close(self, worker: Process) -> Ended:
        kills = count_oom_kills()
        out_of_memory, self._oom_kills = kills > self._oom_kills, kills
        words = self._stuck.get(worker.pid) or f"killed by {signal.Signals(-worker.returncode).name}"
        if out_of_memory:
            words += " of the node's kernel (oom-kill: the job's memory was full)"
        its = [
            (run_id, record)
            for run_id, record in self.newest_attempts()
            if record.process.pid == worker.pid and record.submission == self.bundle.submission
        ]
        held = [(run_id, record) for run_id, record in its if record.outcome is None]
        for run_id, record in held:
            folder = self.folder(run_id)
            if out_of_memory:
                close_dead(folder, record.number, outcome="failed", cause=Cause.HOST_OOM, message=words)
            elif worker.returncode == -signal.SIGABRT and self.bundle.options.processes > 1:
                _close_cut_off(folder, record, words)
            else:
                close_dead(folder, record.number, message=words)
        return Ended(worker, words, tuple(run_id for run_id, _ in held), took=bool(its))


def _close_cut_off(folder: RunFolder, record: AttemptRecord, words: str) -> None:
    """Close an attempt whose processes torch has aborted, as it does when NCCL fails; the second time as failed."""
    last = heartbeat(folder, record.number)
    again = cut_off_again(folder, record.number, last.epoch if last else record.start_epoch)
    words = f"{words}: its GPUs lost each other"
    if again:
        close_dead(folder, record.number, outcome="failed", cause=Cause.GPU_FAULT, message=words)
    else:
        close_dead(folder, record.number, cause=Cause.LOST, message=words)


def read_attempt(folder: RunFolder, number: int) -> AttemptRecord | None:
    try:
        return read_json(folder.attempt(number), AttemptRecord)
    except RecordError:
        return None


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
