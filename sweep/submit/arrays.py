"""Put runs into job arrays: one a pool, recipe and set of resources. Pure."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from slurm.bundles import bundle_within, chunks, limit_min
from slurm.jobs import ArrayRecord, Resources
from slurm.limits import ClusterLimits
from slurm.submission import resources
from sweep.config.schema import Cluster, Sweep, sharing
from sweep.plan.rows import PlanRow
from sweep.submit.remedies import Change

UNCHANGED = Change()


def plan_arrays(
    sweep: Sweep,
    cluster: Cluster,
    rows: Sequence[PlanRow],
    limits: ClusterLimits,
    changes: Mapping[str, Change],
    avoid: Mapping[str, Collection[str]] = {},
) -> list[ArrayRecord]:
    """Put runs into arrays: one a pool, recipe and set of resources, cut where the cluster allows no longer ones.

    The tags are given when the token is known. Runs beyond what Slurm takes of the user are left out. An array whose
    runs are all estimated by measured ones asks for no more time than its longest job is sure to need. Where the pool
    leaves the time to the site, every array does, and only `job_target_min` says how much goes into a job. avoid: by
    pool, nodes that its jobs keep away from.
    """
    section = cluster.section
    groups: dict[tuple[str, str, str], list[PlanRow]] = {}
    wanted: dict[tuple[str, str, str], Resources] = {}
    for row in rows:
        change = changes.get(row.id, UNCHANGED)
        pool = change.pool or row.placed.pool
        usual = resources(cluster.pools[pool], **sharing(sweep, cluster))
        asked = change.apply(usual.model_copy(update={"exclude": sorted({*usual.exclude, *avoid.get(pool, ())})}))
        key = (pool, row.placed.spec.training.hash, asked.model_dump_json())
        groups.setdefault(key, []).append(row)
        wanted[key] = asked
    sent: Counter[str] = Counter()  # by limit
    needed_s = {row.id: _needed_s(row, changes.get(row.id, UNCHANGED)) for row in rows}
    arrays = []
    for key, group in groups.items():
        caps, most_min = limits.caps(wanted[key]), wanted[key].time_limit_min
        tasks = bundle_within(
            {row.id: row.remaining_s for row in group},
            target_s=section.job_target_min * 60,
            limit_s=math.inf if most_min is None else most_min * 60,
            workers=section.runs_per_gpu,
            most=max(0, min(cap.left - sent[cap.whose] for cap in caps)),
        )
        sent.update({cap.whose: len(tasks) for cap in caps})
        for piece in chunks(tasks, limits.of(wanted[key].clusters).max_array_size - 1):
            longest_s = max(sum(needed_s[run_id] for run_id in task) for task in piece)
            asked = wanted[key]
            if most_min is not None and longest_s < math.inf:
                asked = asked.model_copy(update={"time_limit_min": limit_min(longest_s, most_min)})
            arrays.append(ArrayRecord(tag="", pool=key[0], resources=asked, tasks=list(piece)))
    return arrays


def _needed_s(row: PlanRow, change: Change) -> float:
    """The seconds that a run surely ends within; infinity where nobody can say, or a retry gives it more."""
    if row.margin is None or change.time_limit_min is not None:
        return math.inf
    return row.margin * row.remaining_s
