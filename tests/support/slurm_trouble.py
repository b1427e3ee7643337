"""What befalls a sweep's jobs on a busy cluster, again and again in a thread of its own: see `Trouble`."""

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from slurm.private_cluster.cluster import PrivateCluster
from slurm.private_cluster.folder import HomeError
from trainer.records.attempt import AttemptRecord
from trainer.records.files import RecordError, read_json
from trainer.records.process import is_alive

SHORTEST_S, LONGEST_S = 0.3, 1.5  # between two
STRANGER = "stranger"


class Trouble:
    """Requeues, holds and releases jobs, kills trainers, breaks pools, drains nodes, and takes up the user's room.

    done: how often it did each. A pool is broken while `broken(name)` exists, for which its `setup` has to look.
    """

    def __init__(
        self, slurm: PrivateCluster, sweep: Path, pools: Sequence[str], nodes: Sequence[str], most: int, seed: str
    ) -> None:
        self.slurm = slurm
        self.sweep = sweep
        self.pools = pools
        self.nodes = nodes
        self.most = most  # jobs that the user may have
        self.draw = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._go_on)
        self.failure: BaseException | None = None

    def broken(self, pool: str) -> Path:
        return self.sweep.with_name(f"broken-{pool}")

    def __enter__(self) -> "Trouble":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End it, and leave nothing of it."""
        self.over.set()
        self.thread.join()
        self._mend()
        if self.failure and not any(error):
            raise self.failure

    def _go_on(self) -> None:
        kinds: dict[str, tuple[Callable[[], bool], int]] = {
            "requeues": (self._requeue, 4),
            "requeues into a hold": (self._requeue_and_hold, 1),
            "holds": (self._hold, 2),
            "trainers killed": (self._kill_trainer, 1),
            "pools broken": (self._break_pool, 2),
            "nodes drained": (self._drain, 1),
            "strangers": (self._take_room, 3),
            "": (self._mend, 4),
        }
        names, weights = list(kinds), [weight for _, weight in kinds.values()]
        try:
            while not self.over.wait(self.draw.uniform(SHORTEST_S, LONGEST_S)):
                (kind,) = self.draw.choices(names, weights)
                if kinds[kind][0]() and kind:
                    self.done[kind] += 1
        except BaseException as error:  # raised again where the test waits for it
            self.failure = error

    def _requeue(self) -> bool:
        return self._to_one("RUNNING", "scontrol", "requeue")

    def _requeue_and_hold(self) -> bool:
        return self._to_one("RUNNING", "scontrol", "requeuehold")

    def _hold(self) -> bool:
        return self._to_one("PENDING", "scontrol", "hold")

    def _to_one(self, state: str, *command: str) -> bool:
        own = [job for job, its, _ in self._own() if its == state]
        return bool(own) and self._try(*command, self.draw.choice(own))

    def _kill_trainer(self) -> bool:
        for path in sorted(self.sweep.glob("runs/*/attempts/*.json")):
            with contextlib.suppress(RecordError, ProcessLookupError):
                record = read_json(path, AttemptRecord)
                if record and record.outcome is None and is_alive(record.process):
                    os.kill(record.process.pid, signal.SIGKILL)
                    return True
        return False

    def _break_pool(self) -> bool:
        self.broken(self.draw.choice(self.pools)).touch()
        return True

    def _drain(self) -> bool:
        return self._try("scontrol", "update", f"nodename={self.draw.choice(self.nodes)}", "state=drain", "reason=test")

    def _take_room(self) -> bool:
        """Submit jobs of the user's own, often as many as there is room for: who has just asked for room is refused."""
        room = self.most - len(self.slurm.run("squeue", "-h", "-r", "-o", "%i").split())
        if room < 1:
            return False
        jobs = max(self.draw.randint(1, room), self.draw.randint(1, room))
        how = ("--hold", f"--array=1-{jobs}", f"--job-name={STRANGER}", "--output=/dev/null", "--wrap=true")
        return self._try("sbatch", *how)

    def _mend(self) -> bool:
        """Mend the pools, resume the nodes, let held jobs go and give the room back."""
        self._try("scancel", f"--name={STRANGER}")
        for pool in self.pools:
            self.broken(pool).unlink(missing_ok=True)
        for node in self.nodes:
            self._try("scontrol", "update", f"nodename={node}", "state=resume")
        for job, state, reason in self._own():
            if state == "PENDING" and "held" in reason.lower():
                self._try("scontrol", "release", job)
        return True

    def _own(self) -> list[tuple[str, str, str]]:
        """List id, state and reason of the sweep's tasks in the queue."""
        try:
            rows = self.slurm.run("squeue", "-h", "-r", "-t", "PENDING,RUNNING", "-o", "%i|%T|%r|%j").splitlines()
        except HomeError:
            return []
        return [(row[0], row[1], row[2]) for row in (line.split("|") for line in sorted(rows)) if row[3] != STRANGER]

    def _try(self, *command: str) -> bool:
        with contextlib.suppress(HomeError):  # the job has ended, the node was not drained, or there is no room
            self.slurm.run(*command)
            return True
        return False
