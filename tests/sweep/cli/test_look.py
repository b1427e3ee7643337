"""What `sweep status --json` says of a run."""

from datetime import datetime, timezone

from result_fixtures import planned_run

from sweep.cli.look import status_entry
from sweep.status.state import RunStatus, State
from trainer.records.attempt import Cause

FIELDS = """
id architecture dataset ratio seed state cause message epoch epochs attempt job node log updated best_val_accuracy
frame passing stale_since problem
"""


def test_a_runs_entry_lists_its_cell_and_then_how_it_stands() -> None:
    """Scripts read these fields in this order; none is nested."""
    run = planned_run("resnet18", "cifar10", 0.1, 42).run
    moment = datetime(2025, 1, 1, tzinfo=timezone.utc)
    entry = status_entry(RunStatus(run, State.FAILED, Cause.TIMEOUT, epoch=3, epochs=9, updated=moment))
    assert list(entry) == FIELDS.split()
    assert (entry["id"], entry["ratio"], entry["seed"]) == (run.id, 0.1, 42)
    assert (entry["state"], entry["cause"], entry["epoch"], entry["updated"]) == ("failed", "timeout", 3, moment)
