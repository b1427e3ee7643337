"""A task that waits in several pools: the job that has begun it cancels the others, which would find nothing to do."""

import os
from collections.abc import Collection, Sequence

from slurm.commands import SlurmError, call


def cancel_waiting(names: Sequence[str], task: int, *, spared: Collection[str]) -> None:
    """Cancel a task of these arrays where it still waits, as far as Slurm answers here.

    One that has started meanwhile is left alone: the runs it finds begun it leaves alone, too. spared: jobs ("12_3")
    that wait to go on with a run of the task, which nobody else would.
    """
    if not names:
        return
    mine = f"--user={os.getuid()}"
    try:
        rows = call(["squeue", "-h", "-r", "-t", "PENDING", mine, f"--name={','.join(names)}", "-o", "%j %F %K"])
        for name, array, number in (row.split() for row in rows.splitlines()):
            if number == str(task) and name in names and f"{array}_{task}" not in spared:
                call(["scancel", "--state=PENDING", mine, f"--name={name}", f"{array}_{task}"])
    except (SlurmError, ValueError) as error:
        print(
            f"this job's rivals in other pools were not cancelled ({error}); they will find nothing to do", flush=True
        )
