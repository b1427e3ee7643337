"""Read a run's log, and go on reading while it grows."""

import time
from collections.abc import Iterator
from pathlib import Path

from sweep.config.schema import Sweep
from sweep.errors import InputError
from sweep.status.folder import SweepFolder
from sweep.status.look import survey
from sweep.status.state import ON_ITS_WAY
from sweep.words import nearest_run

POLL_S = 0.5


def read_log(sweep: Sweep, run_id: str, *, attempt: int | None, follow: bool) -> Iterator[str]:
    """Yield the log of an attempt piece by piece, of the newest by default; with follow until the run has ended.

    A run whose job died before it began has the job's own output. Raises InputError for an unknown run, for one that
    has no log, and for an attempt that never was.
    """
    statuses = {status.id: status for status in survey(sweep)}
    if run_id not in statuses:
        raise InputError(f"no run '{run_id}' in this sweep{nearest_run(run_id, statuses)}")
    status = statuses[run_id]
    folder = SweepFolder(sweep.folder).run(run_id)
    numbers = folder.attempt_numbers()
    died_before = status.log is not None and not Path(status.log).is_relative_to(folder.path)
    if status.log and died_before and attempt is None:
        return _pieces(sweep, run_id, Path(status.log), follow=follow)
    if not numbers:
        where = f"; it is {status.state.value} in job {status.job}" if status.job else ""
        reason = f": {status.message}" if status.message else ""
        raise InputError(f"{run_id} has not been started and has no log{where}{reason}")
    number = attempt or numbers[-1]
    if number not in numbers:
        raise InputError(f"{run_id} has no attempt {number}; it has {', '.join(map(str, numbers))}")
    return _pieces(sweep, run_id, folder.log(number), follow=follow)


def _pieces(sweep: Sweep, run_id: str, path: Path, *, follow: bool) -> Iterator[str]:
    at = 0
    while True:
        active = follow and _is_active(sweep, run_id)  # asked before reading, so that the last lines are not missed
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                file.seek(at)
                text = file.read()
                at = file.tell()
            if text:
                yield text
        if not active:
            return
        time.sleep(POLL_S)


def _is_active(sweep: Sweep, run_id: str) -> bool:
    found = next(status for status in survey(sweep) if status.id == run_id)
    return found.state in ON_ITS_WAY
