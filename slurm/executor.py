"""The face every executor has, whether it starts Slurm jobs or local processes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from trainer.records import Process, Record


class JobRecord(Record):
    """A job that was started. process: the local worker; None for a job of a scheduler."""

    id: str
    process: Process | None = None


class Executor(Protocol):
    """Starts jobs that each execute a bundle, and tells which still live."""

    name: str

    def start(self, bundle: Path, count: int) -> Sequence[JobRecord]:
        """Start `count` jobs on a bundle file. Raises OSError."""
        ...

    def alive(self, job: JobRecord) -> bool | None:
        """Tell whether a job still lives; None when that cannot be known from here."""
        ...

    def stop(self, job: JobRecord) -> None:
        """Ask a job to stop in good order."""
        ...
