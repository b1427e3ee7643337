"""Put runs into job arrays: one a pool, recipe, set of resources and code. Pure."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from slurm.bundles import bundle_within, chunks, limit_min
from slurm.jobs import ArrayRecord, Resources
from slurm.limits import ClusterLimits
from slurm.submission import resources
from sweep.config.operations import estimate_s
from sweep.config.schema import Cluster, Sweep, sharing
from sweep.plan.rows import PlanRow
from sweep.submit.remedies import Change
from trainer.records.code import Code

UNCHANGED = Change()


def plan_arrays(
    sweep: Sweep,
    cluster: Cluster,
    rows: Sequence[PlanRow],
    limits: ClusterLimits,
    changes: Mapping[str, Change],
    avoid: Mapping[str, Collection[str]] = {},
    codes: Mapping[str, Code] = {},
) -> list[ArrayRecord]:
    """Put runs into arrays: one a pool, recipe, set of resources and code, cut where the cluster allows no longer ones.

    The tags are given when the token is known. Runs beyond what Slurm takes of the user are left out. An array whose
    runs are all estimated by measured ones asks for no more time than its longest job is sure to need. Where the pool
    leaves the time to the site, every array does, and only `job_target_min` says how much goes into a job. avoid: by
    pool, nodes that its jobs keep away from. codes: by run id, what each runs.

    Runs that race between pools are bundled for the slowest of them, and their tasks go into an array in each.
    """
    section = cluster.section
    groups: dict[tuple[tuple[str, ...], str, str, Code | None], list[PlanRow]] = {}
    wanted: dict[tuple[tuple[str, ...], str, str, Code | None], list[Resources]] = {}
    for row in rows:
        change = changes.get(row.id, UNCHANGED)
        pools = (change.pool,) if change.pool else tuple(one.pool for one in row.placed.everywhere)
        asked = []
        for pool in pools:
            usual = resources(cluster.pools[pool], **sharing(sweep, cluster))
            kept_from = sorted({*usual.exclude, *avoid.get(pool, ())})
            asked.append(change.apply(usual.model_copy(update={"exclude": kept_from})))
        key = (
            pools,
            row.placed.spec.training.hash,
            "".join(each.model_dump_json() for each in asked),
            codes.get(row.id),
        )
        groups.setdefault(key, []).append(row)
        wanted[key] = asked
    sent: Counter[str] = Counter()  # by limit
    needed_s = {row.id: _needed_s(row, changes.get(row.id, UNCHANGED)) for row in rows}
    arrays: list[ArrayRecord] = []
    for key, group in groups.items():
        caps = [cap for each in wanted[key] for cap in limits.caps(each)]
        counted = Counter(cap.whose for cap in caps)  # twice where both pools of a race fall under one limit
        tasks = bundle_within(
            {row.id: _longest_s(row) for row in group},
            target_s=section.job_target_min * 60,
            limit_s=min(math.inf if each.time_limit_min is None else each.time_limit_min * 60 for each in wanted[key]),
            workers=section.runs_per_gpu,
            most=max(0, min((cap.left - sent[cap.whose]) // counted[cap.whose] for cap in caps)),
        )
        sent.update({whose: len(tasks) * times for whose, times in counted.items()})
        most = min(limits.of(each.clusters).max_array_size - 1 for each in wanted[key])
        for piece in chunks(tasks, most):
            longest_s = max(sum(needed_s[run_id] for run_id in task) for task in piece)
            race = len(arrays) if len(key[0]) > 1 else None
            for pool, each in zip(key[0], wanted[key], strict=True):
                shorter = each
                if each.time_limit_min is not None and longest_s < math.inf:
                    shorter = each.model_copy(update={"time_limit_min": limit_min(longest_s, each.time_limit_min)})
                arrays.append(ArrayRecord(tag="", pool=pool, resources=shorter, tasks=list(piece), race=race))
    return arrays


def _longest_s(row: PlanRow) -> float:
    """The seconds that are left of a run in the slowest of the pools it is sent to."""
    usual_s = estimate_s(row.placed)
    slowest_s = max(estimate_s(one) for one in row.placed.everywhere)
    return row.remaining_s * (slowest_s / usual_s if usual_s else 1.0)


def _needed_s(row: PlanRow, change: Change) -> float:
    """The seconds that a run surely ends within; infinity where nobody can say, or a retry gives it more."""
    if row.margin is None or change.time_limit_min is not None:
        return math.inf
    return row.margin * _longest_s(row)
