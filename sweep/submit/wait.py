"""Wait for a submission: its executor sees to the jobs, and its runs are looked at and shown meanwhile."""

from collections.abc import Callable, Sequence

from slurm.executor import Executor, Report
from slurm.jobs import Submission
from slurm.timeouts import ASK_S
from sweep.config.schema import Sweep
from sweep.status.look import look
from sweep.status.state import ON_ITS_WAY, RunStatus

SLURM_AGE_S = ASK_S - 0.5  # who waits may look at the files more often than at the scheduler, which is everyone's


def until_ended(
    sweep: Sweep,
    record: Submission,
    executor: Executor,
    show: Callable[[Sequence[RunStatus]], None],
    report: Report,
) -> bool:
    """Wait for the end of what was just started; False if Ctrl-C came before. show draws states, report a line."""

    def look_again() -> bool:
        statuses = look(sweep, max_age_s=SLURM_AGE_S).statuses
        show(statuses)
        return any(status.state in ON_ITS_WAY for status in statuses if status.id in record.runs)

    return executor.wait(look_again, report)
