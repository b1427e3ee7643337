"""Look at the cluster one is on: its limits, and the GPUs that a short job in each pool sees."""

from collections.abc import Sequence

from slurm.commands import SlurmError
from slurm.devices import CPU
from slurm.limits import ClusterLimits, read_limits
from slurm.pools import Pool
from slurm.submission import on_login_node
from sweep.doctor.nodes import BUSY, FREE_NODE_S, REFUSED, Probed, run_probes, srun_command
from sweep.errors import MachineError
from sweep.init.draft import Draft, Shown

JOB_NAME = "sweep-init"
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


def limits_here() -> ClusterLimits | None:
    """What the cluster here allows; None where there is no Slurm. Raises MachineError where it does not answer."""
    if not on_login_node():
        return None
    try:
        return read_limits()
    except SlurmError as error:
        raise MachineError(f"Slurm does not answer: {error}; try again when 'scontrol ping' says UP") from error


def look_at(found: Sequence[Draft]) -> dict[str, Shown]:
    """Ask nvidia-smi in a short job of each pool with GPUs, all pools at once; by the pool's name."""
    pools = {
        draft.name: Pool(device=CPU, partition=draft.partition, gres=draft.gres, memory_gb=0.2)
        for draft in found
        if draft.gres
    }
    commands = {name: (pool, srun_command(pool, JOB_NAME, QUERY)) for name, pool in pools.items()}
    try:
        return {probed.name: _read(probed) for probed in run_probes(commands, JOB_NAME)}
    except OSError as error:
        return dict.fromkeys(pools, Shown(problem=f"srun could not be started: {error.strerror}"))


def _read(probed: Probed) -> Shown:
    if probed.code is None:
        return Shown(problem="its probe did not end")
    if BUSY.search(probed.err):
        return Shown(problem=f"no node was free within {FREE_NODE_S} s")
    if REFUSED.search(probed.err):
        last = probed.err.strip().splitlines()[-1]
        return Shown(problem=f"Slurm refused the probe: {last.removeprefix('srun: error: ')}")
    rows = [row.rsplit(",", 1) for row in probed.out.splitlines() if "," in row]
    return Shown(tuple((name.strip(), int(mib) / 1024) for name, mib in rows if mib.strip().isdigit()))
