"""The cluster that runs go to: whether there is one here, what it allows, and what remedies may choose from."""

from slurm.commands import SlurmError
from slurm.fit import problems
from slurm.limits import ClusterLimits, read_limits
from slurm.submission import on_login_node, resources
from sweep.config.schema import Cluster, Sweep, sharing
from sweep.errors import InputError, MachineError
from sweep.status.look import Look
from sweep.submit.remedies import Ground


def target(sweep: Sweep, *, local: bool) -> Cluster | None:
    """Give the cluster that the runs go to; None for this machine."""
    return sweep.cluster if sweep.cluster and not local and on_login_node() else None


def read_cluster_limits(sweep: Sweep, cluster: Cluster) -> ClusterLimits:
    """Ask what the cluster allows, and refuse pools that it has not. Raises InputError, MachineError."""
    try:
        limits = read_limits()
    except SlurmError as error:
        raise MachineError(f"Slurm does not answer, nothing was submitted: {error}; see 'sweep doctor'") from error
    used = {placed.pool for placed in sweep.runs}
    for name in sorted(used):
        wrong = problems(cluster.pools[name], limits, **sharing(sweep, cluster))
        if wrong:
            raise InputError(f"{cluster.file}: pool '{name}': {wrong[0]}")
    return limits


def ground(sweep: Sweep, cluster: Cluster, limits: ClusterLimits, seen: Look) -> Ground:
    """Give what remedies may choose from: what the cluster has, and what each run's last job was given."""
    last = {run_id: place.array for run_id, place in seen.places.items() if place.array is not None}
    return Ground(
        pools=cluster.pools,
        usual={name: resources(pool, **sharing(sweep, cluster)) for name, pool in cluster.pools.items()},
        limits=limits,
        last={run_id: array.resources for run_id, array in last.items()},
        last_pool={run_id: array.pool for run_id, array in last.items()},
    )
