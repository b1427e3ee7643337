"""The terminal says why runs wait, are stuck or were cut off, each reason once."""

from sweep.cli.tables import reasons
from sweep.status.state import RunStatus, State
from trainer.records.run import Run


def status(number: int, state: State, message: str | None) -> RunStatus:
    run = Run(id=f"run-{number}", architecture="vit", dataset="cifar10", ratio=1.0, seed=number)
    return RunStatus(run, state, message=message)


def test_each_reason_is_a_line_with_its_count() -> None:
    """Runs that are stuck come first, as they want someone; what failed is told elsewhere, with more."""
    priority = "waits for jobs of higher priority (Slurm: Priority)"
    statuses = [
        *(status(number, State.QUEUED, priority) for number in range(40)),
        status(40, State.QUEUED, "is held; 'scontrol release 7_3' lets it go (Slurm: JobHeldUser)"),
        status(41, State.STALLED, "has shown no sign for 21 min; 'sweep retry run-41' ends it and goes on"),
        status(42, State.STALLED, "has shown no sign for 9 min; 'sweep retry run-42' ends it and goes on"),
        status(43, State.STARTING, "its job runs on n1, and has not reported yet"),
        status(44, State.RUNNING, None),
        status(45, State.FAILED, "an exception"),
        status(46, State.QUEUED, None),
    ]
    assert reasons(statuses).plain.splitlines() == [
        "! 2 stalled  has shown no sign for 21 min; 'sweep retry run-41' ends it and goes on",
        "▷ run-43  its job runs on n1, and has not reported yet",
        f"… 40 queued  {priority}",
        "… run-40  is held; 'scontrol release 7_3' lets it go (Slurm: JobHeldUser)",
    ]
