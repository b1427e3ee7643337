"""Whether Slurm has an array whose submission did not end well: adopted, refused, or left open, never guessed."""

from datetime import timedelta

import pytest

from slurm.acceptance import Standing, settle
from slurm.jobs import Answer, ArrayRecord, Resources, Snapshot, TaskRow
from slurm.submission import unusable_folder
from slurm.timeouts import SETTLE_S
from trainer.records.base import now

MOMENT = now()
LATER = MOMENT + timedelta(seconds=SETTLE_S + 1)
ARRAY = ArrayRecord(tag="study.word-0001.0", pool="gpu", resources=Resources(partition="gpu"), tasks=[["a"], ["b"]])
ASKED = ARRAY.model_copy(update={"asked": MOMENT})
SEEN = {ARRAY.tag: {0: TaskRow(job="7_0", state="PENDING", seen=MOMENT, source="squeue")}}
ANSWERED = Answer(answered=LATER, asked=LATER)
EARLY = Answer(answered=MOMENT, asked=MOMENT)
FAILED = Answer(answered=MOMENT, asked=LATER, problem="timed out")
OFF = Answer(asked=LATER, disabled=True)

CASES = {
    "Slurm named it": (ARRAY.model_copy(update={"job": "7"}), False, Snapshot(), Standing.ACCEPTED),
    "found by its tag": (ASKED, False, Snapshot(tasks=SEEN), Standing.ACCEPTED),
    "Slurm said no": (ASKED.model_copy(update={"refused": "Invalid qos"}), False, Snapshot(), Standing.REFUSED),
    "being submitted": (ARRAY, True, Snapshot(), Standing.UNCONFIRMED),
    "being submitted elsewhere": (ARRAY, None, Snapshot(), Standing.UNCONFIRMED),
    "cut off before sbatch": (ARRAY, False, Snapshot(), Standing.REFUSED),
    "cut off at sbatch, nothing heard": (ASKED, False, Snapshot(), Standing.UNCONFIRMED),
    "both answered long after": (ASKED, False, Snapshot(squeue=ANSWERED, sacct=ANSWERED), Standing.REFUSED),
    "accounting is off": (ASKED, False, Snapshot(squeue=ANSWERED, sacct=OFF), Standing.REFUSED),
    "answered too early": (ASKED, False, Snapshot(squeue=EARLY, sacct=ANSWERED), Standing.UNCONFIRMED),
    "squeue failed since": (ASKED, False, Snapshot(squeue=FAILED, sacct=ANSWERED), Standing.UNCONFIRMED),
    "sacct failed since": (ASKED, False, Snapshot(squeue=ANSWERED, sacct=FAILED), Standing.UNCONFIRMED),
    "submitter elsewhere, long ago": (ASKED, None, Snapshot(squeue=ANSWERED, sacct=OFF), Standing.REFUSED),
}


@pytest.mark.parametrize(("array", "alive", "snapshot", "standing"), CASES.values(), ids=CASES.keys())
def test_an_array_is_settled_by_evidence_only(
    array: ArrayRecord, alive: bool | None, snapshot: Snapshot, standing: Standing
) -> None:
    """A query that failed, or answered before Slurm could know, settles nothing."""
    assert settle(array, alive, snapshot, LATER).standing is standing


@pytest.mark.parametrize("folder", ["runs/%j", "runs/a\nb"])
def test_a_folder_slurm_would_read_otherwise_is_refused(folder: str) -> None:
    """Slurm expands % in the path of its output, and a job script has lines."""
    from pathlib import Path

    assert "choose another --output" in (unusable_folder(Path(folder)) or "")
    assert unusable_folder(Path("runs/a b'c\"d;e")) is None
