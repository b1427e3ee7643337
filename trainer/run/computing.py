"""What computes a run's epochs: device, number format, threads. Whatever changes may round otherwise, and is noted."""

import os

import torch

from trainer.loop.device import gpu_names
from trainer.loop.environment import cpu_name
from trainer.loop.trainer import Trainer
from trainer.records.checkpoint_file import CheckpointInfo
from trainer.records.result import Stretch

DEFAULT_THREADS = torch.get_num_threads()  # torch's own choice, before any run changes it


class Computing:
    """The threads a run began with, and what computed which of its epochs."""

    def __init__(self, resumed: CheckpointInfo | None, threads: int) -> None:
        """threads: asked for; 0 for torch's own choice. A run that goes on keeps those it began with."""
        self.threads = resumed.threads if resumed else threads or DEFAULT_THREADS
        self.stretches: list[Stretch] = resumed.stretches if resumed else []

    def go_on(self, trainer: Trainer) -> str | None:
        """Set the threads, fewer where there are fewer cores; say what differs from before, None if nothing does."""
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else self.threads
        torch.set_num_threads(max(1, min(self.threads, available) // trainer.group.size))
        here = Stretch(
            epoch=trainer.epoch,
            device=_name(trainer),
            precision=trainer.precision,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
        )
        before = self.stretches[-1] if self.stretches else here
        self.stretches = extend(self.stretches, here)
        return None if before.like(here) else f"goes on on {here}, after {before}: the last bits may differ"


def extend(stretches: list[Stretch], now_on: Stretch) -> list[Stretch]:
    """Add what computes from an epoch on, unless it goes on with the like."""
    if stretches and stretches[-1].like(now_on):
        return stretches
    return [*(one for one in stretches if one.epoch < now_on.epoch), now_on]


def _name(trainer: Trainer) -> str:
    """Name what computes: one GPU a process, or the processor, which rounds otherwise in several processes."""
    processes = trainer.group.size
    shared = f" in {processes} processes" if processes > 1 else ""
    return ", ".join(gpu_names(trainer.device, processes)) or cpu_name() + shared
