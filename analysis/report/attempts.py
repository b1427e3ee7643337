"""The table of a run's attempts."""

from typing import NamedTuple

from analysis.report.standing import moment
from trainer.records.attempt import Attempt, AttemptRecord
from trainer.records.files import RecordError, read_json
from trainer.records.result import Result
from trainer.records.run import RunFolder


class AttemptRow(NamedTuple):
    """A row of the table; remark: the attempt's cause and message, or what is wrong with its file."""

    number: str
    started: str = ""
    ended: str = ""
    epochs: str = ""
    host: str = ""
    job: str = ""
    outcome: str = ""
    remark: str = ""


def attempt_rows(files: RunFolder, result: Result | None) -> tuple[AttemptRow, ...]:
    """List the attempts from their own files, which say more, or from the result where a file is gone."""
    known = {attempt.number: attempt for attempt in result.attempts} if result else {}
    rows = []
    for number in sorted({*files.attempt_numbers(), *known}):
        try:
            record: Attempt | None = read_json(files.attempt(number), AttemptRecord)
        except RecordError as error:
            damage = f"attempts/{files.attempt(number).name} {error.reason}"
            rows.append(_attempt(known[number], damage) if number in known else AttemptRow(str(number), remark=damage))
            continue
        record = record or known.get(number)
        if record is not None:
            rows.append(_attempt(record, _remark(record)))
    return tuple(rows)


def _attempt(attempt: Attempt, remark: str) -> AttemptRow:
    return AttemptRow(
        number=str(attempt.number),
        started=moment(attempt.started),
        ended=moment(attempt.ended),
        epochs=f"{attempt.start_epoch}–{attempt.end_epoch}" if attempt.ended else f"{attempt.start_epoch}–",
        host=attempt.host,
        job=attempt.job,
        outcome=attempt.outcome or "open",
        remark=remark,
    )


def _remark(attempt: Attempt) -> str:
    if not isinstance(attempt, AttemptRecord):
        return ""
    return ": ".join(part for part in (attempt.cause.value if attempt.cause else "", attempt.message or "") if part)
