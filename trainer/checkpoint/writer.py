"""Checkpoints written beside the training: the loop pays for a copy of its state, a thread for the rest.

Owns the thread, its one write at a time, and what it costs. `trainer.checkpoint.tensors` knows the files.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from concurrent import futures
from pathlib import Path

import torch
from torch import Tensor

from trainer.checkpoint.tensors import save
from trainer.records.checkpoint_file import CheckpointInfo

log = logging.getLogger("trainer")


class CheckpointWriter:
    """Writes the checkpoints of one attempt.

    may_write is called before the disk is touched and raises to forbid it. passed_over: files that the first good
    checkpoint replaces. saved: the epochs in the newest checkpoint on the disk, as far as this attempt knows.
    """

    def __init__(
        self, folder: Path, may_write: Callable[[], None], *, saved: int = 0, passed_over: Collection[Path] = ()
    ) -> None:
        self.folder = folder
        self.saved = saved
        self.written = 0
        self.copy_s = 0.0  # of the training thread
        self.wait_s = 0.0  # likewise, for a write that was still going on
        self.write_s = 0.0  # of the newest write
        self.cpu_s = 0.0  # of the thread
        self._may_write = may_write
        self._passed_over = passed_over
        self._thread = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: futures.Future[None] | None = None
        self._copy: dict[str, Tensor] = {}

    def save(self, info: CheckpointInfo, tensors: Mapping[str, Tensor]) -> None:
        """Copy the state and begin to write it. Raises what `wait` does, for the write before."""
        self.wait()  # the copy of the last one is still needed
        started = time.perf_counter()
        self._take_copy(tensors)
        self.copy_s += time.perf_counter() - started
        self._writing = self._thread.submit(self._write, info, self._copy)

    def __str__(self) -> str:
        held_up = self.copy_s + self.wait_s
        return (
            f"{self.written} checkpoints: held training up for {held_up:.2f} s, "
            f"took {self.cpu_s:.2f} s of a core beside it"
        )

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait so long for the write in flight. Returns whether it is over. Raises OSError, and what may_write does."""
        if self._writing is None:
            return True
        started = time.perf_counter()
        done, _ = futures.wait([self._writing], timeout_s)
        self.wait_s += time.perf_counter() - started
        if not done:
            return False
        writing, self._writing = self._writing, None
        writing.result()
        return True

    def close(self) -> None:
        """End the thread, after the write in flight. Raises what `wait` does."""
        self.wait()
        self._thread.shutdown()

    def _take_copy(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy to the CPU, into the memory of the last copy: fresh pages would cost as much again."""
        for name, tensor in tensors.items():
            if name not in self._copy:
                self._copy[name] = _room_for(tensor)
            self._copy[name].copy_(tensor.detach())

    def _write(self, info: CheckpointInfo, tensors: Mapping[str, Tensor]) -> None:
        started, cpu = time.perf_counter(), time.thread_time()
        try:
            self._may_write()
            save(self.folder, info, tensors, passed_over=self._passed_over)
        finally:
            self.cpu_s += time.thread_time() - cpu
            self.write_s = time.perf_counter() - started
        self._passed_over = ()
        self.saved = info.history.epochs
        self.written += 1


def _room_for(tensor: Tensor) -> Tensor:
    """Memory for a copy on the CPU: of the kind a GPU copies to fastest, which may run out before the rest."""
    if tensor.is_cuda:
        try:
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        except RuntimeError as error:
            log.debug("no page-locked memory for a checkpoint's copy: %s", error)
    return torch.empty(tensor.shape, dtype=tensor.dtype)
