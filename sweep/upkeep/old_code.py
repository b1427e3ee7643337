"""Frozen code that no run goes on with any more: found, and taken out of the way of those who submit at that moment."""

import contextlib
import functools
import time
from pathlib import Path

from slurm.code import beside, snapshot
from sweep.status.evidence import read_evidence
from sweep.status.folder import SweepFolder
from sweep.upkeep.unfinished import abandoned, lies_within, passing
from trainer.records.alive import ABANDONED_S
from trainer.records.files import RecordError


def find_old_code(folder: SweepFolder) -> list[Path]:
    """The copies that no submission with an unfinished run names, and those that a killed submitter left half-written.

    None where a record of a submission cannot be read: it may name any of them.
    """
    if not folder.code.is_dir() or not lies_within(folder.code, folder.path):
        return []
    try:
        needed = _needed(folder)
    except RecordError:
        return []
    found = [path for path in sorted(folder.code.iterdir()) if path.is_dir() and not path.is_symlink()]
    return [path for path in found if (_is_old(path) if passing(path) else path not in needed)]


def retire(folder: SweepFolder, path: Path) -> Path | None:
    """Take a copy from its place, so that whoever submits now stores it anew; None if it is needed by now, and stays.

    Raises OSError.
    """
    if passing(path):
        return path
    aside = path.rename(beside(path))
    if path not in _needed(folder):
        return aside
    with contextlib.suppress(OSError):  # it is there again
        aside.rename(path)
    return aside if aside.exists() else None


def _needed(folder: SweepFolder) -> set[Path]:
    """Where the copies lie that an unfinished run was sent with. Raises RecordError."""

    @functools.cache
    def settled(run_id: str) -> bool:
        run = folder.run(run_id)
        return read_evidence(run).result is not None and abandoned(run)

    return {
        snapshot(folder.submissions, code)
        for submission in folder.read_submissions()
        for number, code in enumerate(submission.codes)
        if not all(settled(run_id) for run_id in submission.runs_of(number))
    }


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_S
    except OSError:
        return False
