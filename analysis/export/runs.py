"""What several targets need of a study's runs: their order, when each epoch ended, their settings."""

import math
from datetime import datetime, timezone
from typing import cast

from analysis.load import run_row
from analysis.study import Study
from trainer.records.result import Best, History, Result

# The columns that training gave; the others of a run's row are what it is and where it ran.
_MEASURED = {*Best.model_fields, *(f"{name}_epoch" for name in Best.model_fields)}
_MEASURED |= {"train_seconds", "evaluation_seconds", "total_seconds"}
_UNKNOWN = datetime.fromtimestamp(0, timezone.utc)

Scalar = float | int | str | bool


def in_plan_order(study: Study) -> list[Result]:
    """Return the results in the plan's order."""
    return [study.results[run.run.id] for run in study.planned if run.run.id in study.results]


def measured(result: Result) -> dict[str, float]:
    """Return a run's best values, their epochs, and its times, by column name."""
    return {name: cast("float", value) for name, value in run_row(result).items() if name in _MEASURED}


def described(result: Result) -> dict[str, Scalar]:
    """Return what a run is and where it ran, by column name; what is unknown is left out."""
    row = run_row(result).items()
    return {name: cast("Scalar", value) for name, value in row if name not in _MEASURED and value is not None}


def settings(result: Result) -> dict[str, Scalar]:
    """Return a run's place in the grid and its recipe; lists as text, the precision that auto became."""
    run = result.run
    recipe = result.training.model_dump(mode="json")
    return {
        "architecture": run.architecture,
        "dataset": run.dataset,
        "ratio": run.ratio,
        "seed": run.seed,
        **{name: str(value) if isinstance(value, list) else value for name, value in recipe.items()},
        "precision": result.hardware.precision,
    }


def epochs_of(result: Result) -> list[dict[str, float]]:
    """Return the history, one mapping per epoch."""
    columns = {name: getattr(result.history, name) for name in History.model_fields}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def started(result: Result) -> datetime:
    """Return the start of the first attempt; 1970 if the result lists none."""
    return result.attempts[0].started if result.attempts else _UNKNOWN


def ended(result: Result) -> datetime:
    """Return the end of the last attempt; if that is unknown, the end of the last epoch."""
    last = result.attempts[-1].ended if result.attempts else None
    return last or datetime.fromtimestamp(epoch_ends(result)[-1], timezone.utc)


def epoch_ends(result: Result) -> list[float]:
    """Return when each epoch ended, seconds since 1970: its attempt's start and the epochs of that attempt up to it.

    An epoch that several attempts began with is the last one's: what came before was lost with its checkpoint. Time
    between epochs (starting, checkpoints) is not in the record, so an end is early by that much.
    """
    seconds = result.history.epoch_seconds
    ends = []
    for epoch in range(len(seconds)):
        of = [attempt for attempt in result.attempts if attempt.start_epoch <= epoch]
        start, first = (of[-1].started, of[-1].start_epoch) if of else (started(result), 0)
        ends.append(start.timestamp() + math.fsum(seconds[first : epoch + 1]))
    return ends
