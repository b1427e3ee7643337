"""The other processes of a run, as process 0 has them: started, awaited, asked why they failed, ended.

Process 0 starts them as its children, or finds itself among those that torchrun started. Children live and die with it:
they end when the pipe from it closes, and when one is killed it ends itself the same way, so that whoever started it
takes notice as of any trainer that was killed.
"""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from torch._C._distributed_c10d import Store, TCPStore

from trainer.distributed.process_group import FAILURE, PATIENCE, Failure, ProcessGroup, meeting_place, ready
from trainer.loop.group import FellowError, LostError
from trainer.loop.trainer import DivergedError
from trainer.records.attempt import Cause, ExitCode
from trainer.records.code import module_command, own_snapshot
from trainer.stop import CutOff, Stopped, StopSignal

log = logging.getLogger("trainer")

LAST_WORDS_S = 10.0  # for a process that failed to say why, and for this one to end after it
START_S = 600.0  # until all have imported torch, on a file system that is slow today
END_S = 10.0
POLL_S = 0.05
# Slurm's signals reach every process of a job. The others stop when process 0 says so, from their first moment on.
DEAF = ("sh", "-c", 'trap "" TERM INT USR2; exec "$@"', "sh")


class Others:
    """All processes of a run but this one, number 0. Started with the first run, and anew after one that broke off."""

    def __init__(self, size: int, stop: StopSignal, *, started: bool = False) -> None:
        """started: torchrun has started them."""
        self.record: Callable[[Exception], object] | None = None  # writes down what ended the run, should this one hang
        self.stop = stop
        self.started = started
        self.group = ProcessGroup(0, size)
        self._store: Store | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._over = threading.Event()

    def gather(self) -> ProcessGroup:
        """Be together with them in one group. Raises LostError, and Interrupted if a signal comes first."""
        if not self.group.connected:
            self._gather(self.stop)
        return self.group

    def part(self, error: BaseException) -> None:
        """Leave the others, after what ended a run, where they wait for the next; or end them wherever they are.

        Raises what is behind it where they could not be reached.
        """
        if isinstance(error, Stopped | DivergedError):  # which all of them left together
            return
        try:
            if isinstance(error, LostError):
                raise self._explain(error) from error
        finally:
            self._abandon()

    def dismiss(self) -> None:
        """Send the others home."""
        self._over.set()
        try:
            if self.started and not self.group.connected:
                self._gather(StopSignal())  # they wait for a word, whatever signal has come
            if self.group.connected:
                self.group.broadcast_words(None)
                self.group.leave()
                deadline = time.monotonic() + END_S
                for child in self._children:
                    child.wait(max(0.0, deadline - time.monotonic()))
        except (LostError, subprocess.TimeoutExpired) as error:
            log.warning("the run's other processes did not end by themselves: %s", error)
        self._abandon()

    def _explain(self, error: Exception) -> Exception:
        """Find why the others cannot be reached: one failed and says of what, or one is gone."""
        deadline = time.monotonic() + LAST_WORDS_S
        while time.monotonic() < deadline:
            told = self._told()
            if told:
                return told
            for rank, child in enumerate(self._children, start=1):
                code = child.poll() or 0
                if code > 0 and code != ExitCode.INTERRUPTED:  # which says that it, too, was cut off
                    return self._silent(rank, code)
            time.sleep(POLL_S)
        return CutOff(f"cut off from the run's other processes ({error})")

    def _told(self) -> FellowError | None:
        """What one of them said when it failed."""
        if self._store is None or not self._has(FAILURE):
            return None
        told = Failure.model_validate_json(self._store.get(FAILURE))
        log.error("process %d of %d failed:\n%s", told.rank + 1, self.group.size, told.traceback)
        return FellowError(f"process {told.rank + 1} of {self.group.size}: {told.words}", told.cause)

    def _silent(self, rank: int, code: int) -> FellowError:
        words = f"process {rank + 1} of {self.group.size} ended with exit code {code}; the job's output says why"
        return FellowError(words, Cause.EXCEPTION)

    def _abandon(self) -> None:
        """End the others wherever they are; the next run starts new ones."""
        self._over.set()
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait()
            if child.stdin:
                child.stdin.close()
        self._children = []
        try:
            self.group.leave(at_once=True)
        except LostError as error:
            log.debug("%s", error)
        if not self.started:
            self._store = None
        self.group = ProcessGroup(0, self.group.size)

    def _gather(self, stop: StopSignal) -> None:
        """Meet the others. To find that one is not coming takes torch its whole patience, so each is awaited first."""
        if self._store is None:
            self._store = meeting_place() if self.started else self._start()
        deadline = time.monotonic() + START_S
        for rank in range(1, self.group.size):
            while not self._has(ready(rank)):
                stop.check()
                if self._has(FAILURE) or any(child.poll() is not None for child in self._children):
                    raise LostError("one of them has ended")
                if time.monotonic() > deadline:
                    raise LostError(f"process {rank + 1} was not ready within {START_S:.0f} s")
                time.sleep(POLL_S)
        self.group.connect(self._store)

    def _start(self) -> Store:
        self._over = threading.Event()
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
        for rank in range(1, self.group.size):
            environment = {**os.environ, **_place(rank, self.group.size, store.port)}
            command = [*DEAF, *module_command("trainer", own_snapshot()), "--follow"]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
            self._children.append(child)
            threading.Thread(target=self._watch, args=(child, rank, self._over), daemon=True).start()
        return store

    def _has(self, key: str) -> bool:
        assert self._store is not None
        try:
            return bool(self._store.check([key]))  # type: ignore[attr-defined]  # torch's stub lacks it
        except RuntimeError:
            return False

    def _watch(self, child: "subprocess.Popen[bytes]", rank: int, over: threading.Event) -> None:
        """End this process with a child that was killed, or that failed where this one waits for a GPU for ever.

        over: is set when the children may end.
        """
        code = child.wait()
        if over.is_set() or code == 0:
            return
        who = f"process {rank + 1} of {self.group.size}"
        if code < 0:
            log.error("%s was killed by %s; the whole run ends with it", who, signal.Signals(-code).name)
        elif over.wait(2 * LAST_WORDS_S):
            return
        else:
            log.error("%s ended with exit code %d, and this one does not come back from waiting for it", who, code)
            if self.record:
                self.record(self._told() or self._silent(rank, code))
        os.kill(os.getpid(), signal.SIGKILL)


def _place(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment that tells a process its place, in torchrun's words."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
