"""When an open attempt has stalled: by its own epochs, or as the user says."""

from datetime import timedelta

import pytest

from trainer.records.alive import STALLED_S, stalled_s
from trainer.records.attempt import AttemptRecord
from trainer.records.base import now
from trainer.records.process import this_process
from trainer.records.result import History
from trainer.records.status import Progress


def attempt(started_s: float, number: int = 1) -> AttemptRecord:
    """Make an attempt that began so many seconds ago."""
    parts = {"host": "n1", "job": "1", "run_id": "r", "submission": None, "process": this_process(), "log": "log"}
    return AttemptRecord(number=number, started=now() - timedelta(seconds=started_s), **parts)


def progress(silent_s: float, epoch_s: float = 1.0) -> Progress:
    """Make the progress of attempt 1, shown so many seconds ago, after an epoch of such a length."""
    history = History(**{name: [epoch_s] for name in History.model_fields})
    parts = {"run_id": "r", "job": "1", "host": "n1", "epoch": 1, "epochs": 9, "step": 0, "steps": 4, "start_epoch": 0}
    moment = now() - timedelta(seconds=silent_s)
    return Progress(attempt=1, started=moment, heartbeat=moment, history=history, **parts)


@pytest.mark.parametrize(
    ("started_s", "silent_s", "epoch_s", "limit_s", "stalled"),
    [
        (9000, STALLED_S - 60, 1, None, False),
        (9000, STALLED_S + 60, 1, None, True),
        (9000, STALLED_S + 60, 300, None, False),
        (9000, 1000, 300, None, True),
        (9000, 90, 1, 60, True),
        (9000, 30, 1, 60, False),
        (9000, 8000, 1, 0, False),
        (STALLED_S - 60, None, 1, None, False),
        (STALLED_S + 60, None, 1, None, True),
    ],
)
def test_a_run_that_shows_no_sign_for_longer_than_its_epochs_take_has_stalled(
    started_s: float, silent_s: float | None, epoch_s: float, limit_s: float | None, stalled: bool
) -> None:
    """Before its first sign, since it began; never where the limit is 0."""
    shown = None if silent_s is None else progress(silent_s, epoch_s)
    found = stalled_s(attempt(started_s), shown, limit_s)
    assert (found is not None) == stalled
    assert found is None or found == pytest.approx(started_s if silent_s is None else silent_s, abs=5)


def test_an_earlier_attempt_s_sign_is_not_this_one_s() -> None:
    assert stalled_s(attempt(30, number=2), progress(9000), None) is None
