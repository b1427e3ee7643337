"""Wait for runs: their executor sees to the jobs, and the runs are looked at and shown meanwhile."""

import time
from collections.abc import Callable, Collection, Sequence

from slurm.executor import Executor, Report
from slurm.timeouts import ASK_S, ROOM_S
from sweep.config.schema import Sweep
from sweep.status.look import look
from sweep.status.state import ON_ITS_WAY, RunStatus

SLURM_AGE_S = ASK_S - 0.5  # who waits may look at the files more often than at the scheduler, which is everyone's


def until_ended(
    sweep: Sweep,
    run_ids: Collection[str],
    executor: Executor,
    show: Callable[[Sequence[RunStatus]], None],
    report: Report,
    room: Callable[[], bool] | None = None,
) -> bool:
    """Wait for the end of these runs; False if Ctrl-C came before. show draws states, report a line.

    room: whether more can be sent, which also ends the waiting; asked when a run has ended, and now and then.
    """
    on_way, asked = len(run_ids), time.monotonic()

    def look_again() -> bool:
        nonlocal on_way, asked
        statuses = look(sweep, max_age_s=SLURM_AGE_S).statuses
        show(statuses)
        before, on_way = on_way, sum(status.state in ON_ITS_WAY for status in statuses if status.id in run_ids)
        if room is None:
            return on_way > 0
        if on_way >= before and time.monotonic() - asked < ROOM_S:
            return True
        asked = time.monotonic()
        return not room()

    return executor.wait(look_again, report)
