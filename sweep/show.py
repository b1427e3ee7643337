"""One run, looked at closely: how it stands, its attempts, its folder, and the code of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from slurm.code import damage, snapshot
from slurm.jobs import Submission
from sweep.config.schema import Sweep
from sweep.errors import InputError
from sweep.status.folder import SweepFolder
from sweep.status.look import look
from sweep.status.state import ON_ITS_WAY, RunStatus
from sweep.words import nearest_run
from trainer.records.attempt import AttemptRecord
from trainer.records.code import Code
from trainer.records.files import RecordError, read_json
from trainer.records.run import RunFolder


class Tried(NamedTuple):
    """An attempt, and what it ran; None where that is not recorded."""

    record: AttemptRecord
    code: Code | None


class Shown(NamedTuple):
    """A run. code: what it runs or, when it is not on its way, ran last; None where that is not recorded.

    snapshot: where that lies, None where it does not any more.
    """

    status: RunStatus
    folder: RunFolder
    attempts: list[Tried]
    code: Code | None
    snapshot: Path | None


def look_at(sweep: Sweep, run_id: str) -> Shown:
    """Look at a run. Raises InputError when there is none of this id."""
    seen = look(sweep)
    status = next((status for status in seen.statuses if status.id == run_id), None)
    if status is None:
        raise InputError(f"no run '{run_id}' in this sweep{nearest_run(run_id, [each.id for each in seen.statuses])}")
    folder = SweepFolder(sweep.folder)
    submissions = {each.token: each for each in seen.submissions}
    records = _attempts(folder.run(run_id))
    attempts = [Tried(record, _code(submissions, record.submission, run_id)) for record in records]
    code = attempts[-1].code if attempts else None
    job = seen.jobs.get(run_id)
    if job and status.state in ON_ITS_WAY:
        code = _code(submissions, job.submission, run_id)
    place = snapshot(folder.submissions.absolute(), code) if code else None
    return Shown(status, folder.run(run_id), attempts, code, place if place and damage(place) is None else None)


def _code(submissions: Mapping[str, Submission], token: str | None, run_id: str) -> Code | None:
    found = submissions.get(token or "")
    return found.code_of(run_id) if found else None


def _attempts(folder: RunFolder) -> list[AttemptRecord]:
    """The attempts whose records can be read, oldest first."""
    found = []
    for number in folder.attempt_numbers():
        try:
            found.append(read_json(folder.attempt(number), AttemptRecord))
        except RecordError:
            continue
    return [record for record in found if record]
