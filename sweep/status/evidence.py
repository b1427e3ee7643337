"""What a run's files say of it. Reading never fails on a damaged file: the damage is part of the evidence."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import BaseModel

from trainer.records.attempt import AttemptRecord
from trainer.records.files import RecordError, read_json
from trainer.records.result import Result
from trainer.records.run import CancelRequest, Commitment, RunFolder
from trainer.records.status import ErrorRecord, Progress

Model = TypeVar("Model", bound=BaseModel)


class Evidence(NamedTuple):
    """What a run's files say; None where there is no such file. problems: what is wrong with those that are damaged."""

    result: Result | None = None
    commitment: Commitment | None = None
    attempt: AttemptRecord | None = None
    progress: Progress | None = None
    error: ErrorRecord | None = None
    cancelled: bool = False
    problems: tuple[str, ...] = ()


def read_evidence(folder: RunFolder) -> Evidence:
    """Read a run's files; a valid result makes the others needless."""
    if not folder.path.is_dir():
        return Evidence()
    problems: list[str] = []

    def read(path: Path, schema: type[Model]) -> Model | None:
        try:
            return read_json(path, schema)
        except RecordError as error:
            problems.append(str(error))
            return None

    result = read(folder.result, Result)
    if result is not None:
        return Evidence(result=result)
    numbers: Sequence[int] = folder.attempt_numbers()
    attempt = read(folder.attempt(numbers[-1]), AttemptRecord) if numbers else None
    return Evidence(
        commitment=read(folder.commitment, Commitment),
        attempt=attempt,
        progress=read(folder.progress, Progress),
        error=read(folder.error, ErrorRecord),
        cancelled=read(folder.cancel, CancelRequest) is not None,
        problems=tuple(problems),
    )
