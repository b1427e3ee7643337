"""From evidence to state: every combination a run's folder can show."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from result_fixtures import make_result, planned_run

from slurm.devices import CPU
from slurm.jobs import JobView, Phase
from sweep.config.schema import PlacedRun
from sweep.status.evidence import Evidence
from sweep.status.state import NO_JOBS, Carrier, Jobs, State, counts, last_frame, run_status
from trainer.records.attempt import AttemptRecord, Cause
from trainer.records.base import now
from trainer.records.process import Process
from trainer.records.recipe import Recipe
from trainer.records.result import History
from trainer.records.run import Commitment, Run, RunFolder
from trainer.records.status import ErrorRecord, Progress

RECIPE = Recipe(epochs=4, lr_milestones=(2,))
PLANNED = planned_run("resnet18", "cifar10", 0.1, 42, training=RECIPE)
PLACED = PlacedRun(PLANNED, "local", CPU, 32, 5000, 10_000)
FOLDER = RunFolder(Path("runs/r"))


def attempt(**changes: Any) -> AttemptRecord:
    fields = {
        "number": 2,
        "started": now(),
        "host": "v100-1",
        "job": "first-1",
        "run_id": PLANNED.run.id,
        "submission": "first",
        "process": Process(host="v100-1", pid=7, started=1.0),
        "log": "logs/attempt-0002.log",
    }
    return AttemptRecord(**{**fields, **changes})


def progress(number: int = 2, epoch: int = 1) -> Progress:
    history = History(**{name: [0.5] * epoch for name in History.model_fields})
    return Progress(
        run_id=PLANNED.run.id,
        attempt=number,
        job="first-1",
        host="v100-1",
        epoch=epoch,
        epochs=4,
        step=0,
        steps=9,
        started=now(),
        heartbeat=now(),
        start_epoch=0,
        history=history,
    )


def error(number: int = 2) -> ErrorRecord:
    return ErrorRecord(
        run_id=PLANNED.run.id,
        cause=Cause.CUDA_OOM,
        exception="OutOfMemoryError",
        message="CUDA out of memory",
        traceback="…",
        attempt=number,
        job="first-1",
        host="v100-1",
        log="x",
        time=now(),
    )


def commitment(recipe: Recipe = RECIPE, fingerprint: str = "data", run: Run = PLANNED.run) -> Commitment:
    return Commitment(run=run, training=recipe, data_fingerprint=fingerprint)


def holder(token: str) -> Carrier:
    """A living local submission."""
    return Carrier(token, JobView(Phase.RUNNING))


FAILED = {"outcome": "failed", "cause": Cause.CUDA_OOM, "message": "out of memory"}
STOPPED = {"outcome": "interrupted", "cause": Cause.KILLED, "message": "stopped by SIGTERM"}

CASES = {
    "nothing": (Evidence(), NO_JOBS, State.PLANNED, None),
    "waiting in a living submission": (Evidence(), Jobs(holder("first")), State.QUEUED, None),
    "cancelled before it began": (Evidence(cancelled=True), Jobs(holder("first")), State.CANCELLED, None),
    "in work": (Evidence(attempt=attempt(), progress=progress()), Jobs(holder("first")), State.RUNNING, None),
    "in work, host cannot be asked": (Evidence(attempt=attempt()), NO_JOBS, State.RUNNING, None),
    "its process here shows no sign": (
        Evidence(attempt=attempt(), progress=progress()),
        Jobs(alive=True, silence_s=900),
        State.STALLED,
        None,
    ),
    "killed": (Evidence(attempt=attempt(), progress=progress()), Jobs(alive=False), State.INTERRUPTED, Cause.KILLED),
    "killed, others go on": (
        Evidence(attempt=attempt()),
        Jobs(holder("first"), alive=False),
        State.INTERRUPTED,
        Cause.KILLED,
    ),
    "killed, submitted again": (Evidence(attempt=attempt()), Jobs(holder("second"), alive=False), State.QUEUED, None),
    "stopped": (Evidence(attempt=attempt(**STOPPED)), NO_JOBS, State.INTERRUPTED, Cause.KILLED),
    "stopped, then cancelled": (
        Evidence(attempt=attempt(**STOPPED), cancelled=True),
        NO_JOBS,
        State.CANCELLED,
        None,
    ),
    "failed": (Evidence(attempt=attempt(**FAILED), error=error()), NO_JOBS, State.FAILED, Cause.CUDA_OOM),
    "failed, retried": (Evidence(attempt=attempt(**FAILED)), Jobs(holder("second")), State.QUEUED, None),
    "cancelled in work": (
        Evidence(attempt=attempt(outcome="cancelled"), cancelled=True),
        NO_JOBS,
        State.CANCELLED,
        None,
    ),
    "result gone": (Evidence(attempt=attempt(outcome="done")), NO_JOBS, State.FAILED, Cause.EXCEPTION),
    "stopped, other recipe now": (
        Evidence(attempt=attempt(**STOPPED), commitment=commitment(Recipe(epochs=5, lr_milestones=(2,)))),
        NO_JOBS,
        State.PLANNED,
        None,
    ),
    "stopped, other data now": (
        Evidence(attempt=attempt(**STOPPED), commitment=commitment(fingerprint="other")),
        NO_JOBS,
        State.PLANNED,
        None,
    ),
    "failed, another run's folder": (
        Evidence(attempt=attempt(**FAILED), commitment=commitment(run=PLANNED.run.model_copy(update={"seed": 43}))),
        NO_JOBS,
        State.PLANNED,
        None,
    ),
    "stopped, same work": (
        Evidence(attempt=attempt(**STOPPED), commitment=commitment()),
        NO_JOBS,
        State.INTERRUPTED,
        Cause.KILLED,
    ),
    "unreadable attempt": (Evidence(problems=("attempts/0001.json: damaged",)), NO_JOBS, State.FAILED, Cause.EXCEPTION),
}


@pytest.mark.parametrize(("evidence", "jobs", "state", "cause"), CASES.values(), ids=CASES.keys())
def test_evidence_decides_the_state(evidence: Evidence, jobs: Jobs, state: State, cause: Cause | None) -> None:
    """Each combination of what is on disk and which jobs live has one state and one cause."""
    found = run_status(PLACED, evidence, jobs, "data", FOLDER)
    assert (found.state, found.cause if state is not State.QUEUED else None) == (state, cause)


@pytest.mark.parametrize(
    ("recipe", "fingerprint", "state"),
    [
        (RECIPE, None, State.DONE),
        (RECIPE, "matching", State.DONE),
        (Recipe(epochs=4, lr_milestones=(2,), dropout=0.1), None, State.STALE),
        (RECIPE, "other", State.STALE),
    ],
)
def test_a_result_is_done_or_stale(recipe: Recipe, fingerprint: str | None, state: State) -> None:
    """Done means: of this recipe and of the data as prepared now; before any data is prepared the recipe decides."""
    result = make_result(planned_run("resnet18", "cifar10", 0.1, 42, training=recipe))
    if fingerprint == "matching":
        fingerprint = result.data.fingerprint
    found = run_status(PLACED, Evidence(result=result), NO_JOBS, fingerprint, FOLDER)
    assert found.state is state
    assert found.epoch == 4
    assert found.best_val_accuracy == result.best.val_accuracy.value


def test_a_failure_shows_the_exception_of_its_own_attempt_only() -> None:
    """An error.json of an earlier attempt says nothing of this one."""
    record = attempt(**FAILED)
    mine = run_status(PLACED, Evidence(attempt=record, error=error(2)), NO_JOBS, None, FOLDER)
    assert mine.message == "OutOfMemoryError: CUDA out of memory"
    assert mine.log == "runs/r/logs/attempt-0002.log"
    other = run_status(PLACED, Evidence(attempt=record, error=error(1)), NO_JOBS, None, FOLDER)
    assert other.message == "out of memory"


def test_progress_of_an_earlier_attempt_is_not_this_ones_epoch() -> None:
    """What the newest attempt says counts: its own progress, else its own record."""
    record = attempt(end_epoch=3)
    assert run_status(PLACED, Evidence(attempt=record, progress=progress(2, 1)), NO_JOBS, None, FOLDER).epoch == 1
    assert run_status(PLACED, Evidence(attempt=record, progress=progress(1, 1)), NO_JOBS, None, FOLDER).epoch == 3


def slurm(phase: Phase = Phase.ENDED, **known: Any) -> Jobs:
    """What is known of a run whose attempt belongs to its newest job, on a node that cannot be looked into."""
    job = JobView(phase, id="7_0", **known)
    return Jobs(Carrier("first", job), job)


OPEN = Evidence(attempt=attempt(), progress=progress())
UNBEGUN = Evidence()
STOPPED_ONE = Evidence(attempt=attempt(**STOPPED), progress=progress())
TOLD = Evidence(attempt=attempt(**{**STOPPED, "message": "bye", "told_to_stop": True}), progress=progress())
NOT_TOLD = Evidence(attempt=attempt(**STOPPED, told_to_stop=False), progress=progress())
CUT_OFF = Evidence(attempt=attempt(**{**STOPPED, "cause": Cause.LOST}), progress=progress())
STUCK = Evidence(attempt=attempt(start_epoch=1), progress=progress())

SLURM_CASES = {
    "queued": (UNBEGUN, slurm(Phase.WAITING, message="Resources"), State.QUEUED, None),
    "its job works on others": (UNBEGUN, slurm(Phase.RUNNING, restarts=0), State.QUEUED, None),
    "not confirmed": (
        UNBEGUN,
        Jobs(Carrier("first", JobView(Phase.UNKNOWN, message="not confirmed"))),
        State.QUEUED,
        None,
    ),
    "in work": (OPEN, slurm(Phase.RUNNING, restarts=0), State.RUNNING, None),
    "its job has begun, and it is the first": (
        UNBEGUN,
        Jobs(Carrier("first", JobView(Phase.RUNNING, id="7_0", node="n1"), began=False, first=True)),
        State.STARTING,
        None,
    ),
    "its job has begun with another": (
        UNBEGUN,
        Jobs(Carrier("first", JobView(Phase.RUNNING, id="7_0"), began=False)),
        State.QUEUED,
        None,
    ),
    "shows no sign, its job runs": (OPEN, slurm(Phase.RUNNING)._replace(silence_s=900), State.STALLED, None),
    "shows no sign, nobody knows of its job": (
        OPEN,
        slurm(Phase.UNKNOWN, problem="squeue timed out")._replace(silence_s=900),
        State.RUNNING,
        None,
    ),
    "shows no sign, as last known its job runs": (
        OPEN,
        slurm(Phase.RUNNING, problem="squeue timed out")._replace(silence_s=900),
        State.RUNNING,
        None,
    ),
    "in work, as last known its job waits": (
        OPEN,
        slurm(Phase.WAITING, problem="squeue timed out", known=now() - timedelta(hours=1)),
        State.RUNNING,
        None,
    ),
    "requeued, as last known": (
        OPEN,
        slurm(Phase.WAITING, problem="squeue timed out", known=now() + timedelta(hours=1)),
        State.QUEUED,
        None,
    ),
    "in work, no answer ever": (OPEN, slurm(Phase.UNKNOWN, problem="squeue timed out"), State.RUNNING, None),
    "in work, started anew": (OPEN, slurm(Phase.RUNNING, restarts=1), State.QUEUED, None),
    "requeued": (OPEN, slurm(Phase.WAITING, restarts=1), State.QUEUED, None),
    "told to stop": (STOPPED_ONE, slurm(Phase.RUNNING, restarts=0), State.QUEUED, None),
    "told to stop, in other words": (TOLD, slurm(Phase.RUNNING, restarts=0), State.QUEUED, None),
    "not told to stop, in the same words": (
        NOT_TOLD,
        slurm(Phase.RUNNING, restarts=0),
        State.INTERRUPTED,
        Cause.KILLED,
    ),
    "time limit, came further": (OPEN, slurm(cause=Cause.TIMEOUT), State.INTERRUPTED, Cause.TIMEOUT),
    "time limit, came no further": (STUCK, slurm(cause=Cause.TIMEOUT), State.FAILED, Cause.TIMEOUT),
    "time limit, stopped in order": (STOPPED_ONE, slurm(cause=Cause.TIMEOUT), State.INTERRUPTED, Cause.TIMEOUT),
    "preempted": (STOPPED_ONE, slurm(cause=Cause.PREEMPTED), State.INTERRUPTED, Cause.PREEMPTED),
    "node died": (OPEN, slurm(cause=Cause.NODE_FAIL), State.INTERRUPTED, Cause.NODE_FAIL),
    "memory": (OPEN, slurm(cause=Cause.HOST_OOM), State.FAILED, Cause.HOST_OOM),
    "cancelled in Slurm": (STOPPED_ONE, slurm(cancelled=True), State.CANCELLED, None),
    "cancelled in Slurm before it began": (UNBEGUN, slurm(cancelled=True), State.CANCELLED, None),
    "exit code without a word": (OPEN, slurm(cause=Cause.EXCEPTION), State.INTERRUPTED, Cause.KILLED),
    "cut off from its other processes": (CUT_OFF, slurm(), State.INTERRUPTED, Cause.LOST),
    "cut off, for the node died": (CUT_OFF, slurm(cause=Cause.NODE_FAIL), State.INTERRUPTED, Cause.NODE_FAIL),
    "cut off, for it was cancelled": (CUT_OFF, slurm(cancelled=True), State.CANCELLED, None),
    "cut off, its job failed of it": (CUT_OFF, slurm(cause=Cause.EXCEPTION), State.INTERRUPTED, Cause.LOST),
    "job gone, attempt left": (OPEN, slurm(gone=True), State.INTERRUPTED, Cause.KILLED),
    "job gone, no record": (UNBEGUN, slurm(gone=True), State.FAILED, Cause.LOST),
    "died before Python": (UNBEGUN, slurm(cause=Cause.LAUNCH_FAILED), State.FAILED, Cause.LAUNCH_FAILED),
    "exit code before a run": (UNBEGUN, slurm(cause=Cause.EXCEPTION), State.FAILED, Cause.LAUNCH_FAILED),
    "node died before its turn": (UNBEGUN, slurm(cause=Cause.NODE_FAIL), State.PLANNED, None),
    "memory before any run": (
        UNBEGUN,
        Jobs(Carrier("first", JobView(Phase.ENDED, id="7_0", cause=Cause.HOST_OOM), began=False)),
        State.FAILED,
        Cause.HOST_OOM,
    ),
    "killed before any run": (
        UNBEGUN,
        Jobs(Carrier("first", JobView(Phase.ENDED, id="7_0", cause=Cause.KILLED), began=False)),
        State.FAILED,
        Cause.LAUNCH_FAILED,
    ),
    "memory, in another run": (UNBEGUN, slurm(cause=Cause.HOST_OOM), State.PLANNED, None),
    "stood back": (UNBEGUN, slurm(), State.PLANNED, None),
    "cancelled, job still queued": (Evidence(cancelled=True), slurm(Phase.WAITING), State.CANCELLED, None),
    "failed in work, job goes on": (
        Evidence(attempt=attempt(**FAILED)),
        slurm(Phase.RUNNING, restarts=0),
        State.FAILED,
        Cause.CUDA_OOM,
    ),
}


@pytest.mark.parametrize(("evidence", "jobs", "state", "cause"), SLURM_CASES.values(), ids=SLURM_CASES.keys())
def test_slurm_and_the_runs_files_together_decide(
    evidence: Evidence, jobs: Jobs, state: State, cause: Cause | None
) -> None:
    """What Slurm says of a job explains how an attempt ended, and never contradicts what the attempt itself wrote."""
    found = run_status(PLACED, evidence, jobs, "data", FOLDER)
    assert (found.state, found.cause if state is not State.QUEUED else None) == (state, cause)


def test_a_state_that_may_be_old_says_since_when() -> None:
    """A query that failed leaves the last known state, with its age and the reason."""
    moment = now()
    found = run_status(PLACED, OPEN, slurm(Phase.RUNNING, restarts=0, known=moment, problem="timed out"), None, FOLDER)
    assert (found.state, found.stale_since, found.problem) == (State.RUNNING, moment, "timed out")


def test_the_last_frame_of_a_traceback_is_where_it_was_raised() -> None:
    """File, line and function, for grouping equal failures."""
    text = 'Traceback:\n  File "/a/b.py", line 1, in f\n    f()\n  File "/a/c.py", line 22, in g\n    x\nValueError: no'
    assert last_frame(text) == "c.py:22 in g"
    assert last_frame("nothing") is None


def test_counts_name_only_states_that_occur() -> None:
    """In the order of the states."""
    statuses = [
        run_status(PLACED, Evidence(), jobs, None, FOLDER) for jobs in (NO_JOBS, Jobs(holder("first")), NO_JOBS)
    ]
    assert counts(statuses) == {"queued": 1, "planned": 2}
    assert list(counts(statuses)) == ["queued", "planned"]
