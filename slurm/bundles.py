"""Which runs share a job, by how long they are expected to take. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")

# The share of a job's time limit that estimates may fill: they are estimates, and a node can be slow.
LIMIT_SHARE = 0.7
# The shortest limit a job is given because its runs were measured: a start on a slow file server, and an epoch or two.
LEAST_LIMIT_MIN = 30


def bundle(seconds: Mapping[str, float], *, target_s: float, limit_s: float, workers: int = 1) -> list[list[str]]:
    """Fill jobs with runs, longest first, until each lasts about target_s and has work for all its workers.

    seconds: by run id, what each is expected to take with a device to itself.
    Workers on one GPU share its time, so a job's length is the sum of its runs. A job never has more runs than it has
    workers if they fill more than LIMIT_SHARE of the limit (infinity where the site alone knows it); what the limit
    ends goes on from its checkpoint.
    """
    jobs: list[list[str]] = []
    filled = 0.0
    for run_id in sorted(seconds, key=lambda run_id: -seconds[run_id]):
        too_long = filled + seconds[run_id] > LIMIT_SHARE * limit_s
        if not jobs or (len(jobs[-1]) >= workers and (filled >= target_s or too_long)):
            jobs.append([])
            filled = 0.0
        jobs[-1].append(run_id)
        filled += seconds[run_id]
    return jobs


def bundle_within(
    seconds: Mapping[str, float], *, target_s: float, limit_s: float, workers: int = 1, most: int | None
) -> list[list[str]]:
    """Bundle into at most `most` jobs, with longer ones where need be; the runs beyond that are left out."""
    jobs = bundle(seconds, target_s=target_s, limit_s=limit_s, workers=workers)
    while most is not None and len(jobs) > max(1, most) and target_s < limit_s:
        target_s = max(60.0, 2 * target_s)
        jobs = bundle(seconds, target_s=target_s, limit_s=limit_s, workers=workers)
    return jobs if most is None else jobs[:most]


def limit_min(needed_s: float, most: int) -> int:
    """The minutes to ask for, for a job that is sure to need no more than needed_s; most: what its pool gives.

    Slurm starts short jobs in the gaps before long ones. Should it not be enough, the job goes on from its checkpoints.
    """
    return min(most, max(LEAST_LIMIT_MIN, math.ceil(needed_s / 60)))


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut a sequence into pieces of at most `size`."""
    return [items[start : start + size] for start in range(0, len(items), size)]
