"""A sweep's folder on disk: where its files lie, what they say, and setting aside what no longer fits.

Reading never fails on a damaged file of a run: the damage is part of the evidence.
"""

import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from slurm.code import FOLDER
from slurm.jobs import Snapshot, Submission, SubmissionFolder
from sweep.status.evidence import Evidence, read_evidence
from trainer.records.base import now
from trainer.records.files import RecordError, create_exclusive, read_json, to_json
from trainer.records.run import RunFolder


class SweepFolder(NamedTuple):
    """<output>/<sweep>."""

    path: Path

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def submissions(self) -> Path:
        return self.path / "submissions"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs / run_id)

    @property
    def queue(self) -> Path:
        """What Slurm last said to this user of the sweep's jobs."""
        return self.queue_of(os.getuid())

    def queue_of(self, uid: int) -> Path:
        """What Slurm last said to a user: another may see less, and so must not write there.

        That of the folder's owner has no number in its name.
        """
        try:
            is_owner = self.path.stat().st_uid == uid
        except OSError:
            is_owner = True
        return self.path / ("queue.json" if is_owner else f"queue-{uid}.json")

    @property
    def nodes(self) -> Path:
        """Since when nodes are judged by what happened on them."""
        return self.path / "nodes.json"

    def seen_by_jobs(self, data: Path) -> list[Path]:
        """The folders that a job reads and writes, by every name it has for them."""
        named = dict.fromkeys((self.path.absolute(), self.path.resolve(), self.runs.resolve(), data.resolve()))
        return [path for path in named if not named.keys() & set(path.parents)]

    def submission(self, token: str) -> Path:
        return self.submissions / f"{token}.json"

    @property
    def code(self) -> Path:
        """What the jobs run, frozen when they were submitted."""
        return self.submissions / FOLDER

    def jobs(self, token: str) -> SubmissionFolder:
        """What the jobs of a submission read and print."""
        return SubmissionFolder(self.submissions / token)

    def next_token(self, submissions: Sequence[Submission]) -> str:
        """The token that the next submission must bear, given those there are.

        It holds the folder's own random word, so that no two sweeps ever share one. Two people who saw the same
        submissions get the same token, and only one can create its file.
        """
        word = self.submissions / "word"
        if not word.exists():
            create_exclusive(word, secrets.token_hex(4).encode())
        return self.coming_token(submissions)

    def coming_token(self, submissions: Sequence[Submission]) -> str:
        """The same without writing anything: with "WORD" in the place of the random word where there is none yet."""
        word = self.submissions / "word"
        numbers = [record.token.rpartition("-")[2] for record in submissions]
        number = 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
        return f"{word.read_text() if word.exists() else 'WORD'}-{number:04d}"

    def create_submission(self, record: Submission) -> bool:
        """Write an intent that nobody else has written at this moment; False if someone has."""
        return create_exclusive(self.submission(record.token), to_json(record))

    def read_submissions(self) -> list[Submission]:
        """Read every submission, oldest first. Raises RecordError for a damaged one: it may hold living jobs."""
        found = [read_json(path, Submission) for path in sorted(self.submissions.glob("*.json"))]
        return sorted((record for record in found if record), key=lambda record: record.created)

    def read_queue(self, uid: int | None = None) -> Snapshot:
        """Read what Slurm last said to a user, this one by default.

        Nothing where that is missing or damaged, for it can be asked again.
        """
        try:
            return read_json(self.queue if uid is None else self.queue_of(uid), Snapshot) or Snapshot()
        except RecordError:
            return Snapshot()

    def read_evidence(self, run_ids: Iterable[str]) -> dict[str, Evidence]:
        """Read the evidence of each run."""
        return {run_id: read_evidence(self.run(run_id)) for run_id in run_ids}

    def set_aside(self, run_id: str, file: Path | None = None) -> Path:
        """Move a run's folder away whole, or one file of it, so that the run can go on and nothing is lost.

        Returns the folder it now lies in. Raises OSError.
        """
        target = self.path / "superseded" / f"{run_id}.{now():%Y%m%dT%H%M%S%f}"
        target.parent.mkdir(exist_ok=True)
        if file is None:
            self.run(run_id).path.rename(target)
        else:
            target.mkdir()
            file.rename(target / file.name)
        return target
