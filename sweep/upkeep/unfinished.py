"""What killed writers leave behind, and whether a run's writer may still live. Looks only."""

import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sweep.status.folder import SweepFolder
from trainer.records.alive import ABANDONED_S, at_work, silent
from trainer.records.attempt import AttemptRecord
from trainer.records.files import UNFINISHED, RecordError, read_json
from trainer.records.run import RunFolder
from trainer.records.status import Progress

TRANSIENT = (".nfs", ".sweep-doctor-")  # NFS keeps open files under such names; the doctor's mark lives for seconds
OUTPUTS = ("tables", "figures", "comparison", "report", "export")


class Leftover(NamedTuple):
    """A file that was being written, by which run's attempt (None outside of runs), and how long ago.

    writer_may_live: whether that attempt is, or could be, in work.
    """

    path: Path
    run_id: str | None
    age_s: float
    writer_may_live: bool


def find_leftovers(folder: SweepFolder, run_ids: Iterable[str]) -> Iterator[Leftover]:
    """Find the unfinished files of a sweep and of these runs. Links are not followed."""
    places: list[tuple[Path, str | None]] = [(folder.path, None), (folder.submissions, None)]
    places += [(folder.path / name, None) for name in OUTPUTS]
    places += [(path, None) for path in sorted(folder.submissions.glob("*/*")) if path.name.isdecimal()]
    for name in run_ids:
        run = folder.run(name)
        places += [(path, name) for path in (run.path, run.attempts, run.checkpoints)]
    for place, run_id in places:
        if not lies_within(place, folder.path):
            continue
        for path in sorted(place.glob(f".*{UNFINISHED}")):
            found = regular(path)
            if found:
                living = run_id is not None and worked_on(folder.run(run_id)) is not False
                yield Leftover(path, run_id, time.time() - found.st_mtime, living)


def regular(path: Path) -> os.stat_result | None:
    """What the disk says of a regular file; None for anything else, links included, and for what has gone."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def lies_within(path: Path, folder: Path) -> bool:
    """Whether a path is where it says: no link between the sweep's folder and it."""
    return path.resolve() == folder.resolve() / path.relative_to(folder)


def passing(path: Path) -> bool:
    """Whether an entry is there for a moment only, or is an unfinished file, which `find_leftovers` finds."""
    name = path.name
    return name.startswith(TRANSIENT) or (name.startswith(".") and name.endswith(UNFINISHED))


def worked_on(run: RunFolder) -> bool | None:
    """Whether a process works in a run's folder; None where that cannot be seen from here."""
    numbers = run.attempt_numbers()
    try:
        return at_work(read_json(run.attempt(numbers[-1]), AttemptRecord) if numbers else None)
    except RecordError:
        return None


def abandoned(run: RunFolder) -> bool:
    """Whether nobody works in a run's folder: seen from here, or by the silence of another host."""
    working = worked_on(run)
    if working is not None:
        return not working
    try:
        progress = read_json(run.progress, Progress)
    except RecordError:
        return False
    return progress is not None and silent(progress.heartbeat, ABANDONED_S)
