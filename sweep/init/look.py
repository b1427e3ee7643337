"""Look at the cluster one is on: its limits, and the GPUs that a short job in each pool sees."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from slurm.commands import SlurmError, without_options
from slurm.limits import ClusterLimits, read_limits
from slurm.submission import on_login_node
from sweep.errors import MachineError
from sweep.init.draft import Draft, Shown

FREE_NODE_S = 20  # how long a probe waits for a node
PROBE_S = 60.0
POLL_S = 0.1
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


def limits_here() -> ClusterLimits | None:
    """What the cluster here allows; None where there is no Slurm. Raises MachineError where it does not answer."""
    if not on_login_node():
        return None
    try:
        return read_limits()
    except SlurmError as error:
        raise MachineError(f"Slurm does not answer: {error}; try again when 'scontrol ping' says UP") from error


def look_at(found: Sequence[Draft]) -> list[Shown]:
    """Ask nvidia-smi in a short job of each pool with GPUs, all pools at once."""
    began = time.monotonic()
    probes = [_start(draft) if draft.gres else None for draft in found]
    shown = []
    try:
        for probe in probes:
            if isinstance(probe, subprocess.Popen):
                shown.append(_read(probe, max(1.0, PROBE_S - (time.monotonic() - began))))
            else:
                shown.append(probe or Shown())
    finally:
        for probe in probes:
            if isinstance(probe, subprocess.Popen) and probe.poll() is None:
                probe.terminate()
                probe.wait()
    return shown


def _start(draft: Draft) -> "subprocess.Popen[str] | Shown":
    options = [
        f"--partition={draft.partition}",
        f"--gres={draft.gres}",
        "--job-name=sweep-init",
        "--nodes=1",
        "--ntasks=1",
        "--mem=200M",
        "--time=1",
        f"--immediate={FREE_NODE_S}",
    ]
    try:
        return subprocess.Popen(
            ["srun", *options, *QUERY],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path("/"),  # which every node has
            env={**without_options(os.environ), "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        return Shown(problem=f"srun could not be started: {error.strerror}")


def _read(probe: "subprocess.Popen[str]", patience_s: float) -> Shown:
    try:
        printed, said = probe.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        return Shown(problem=f"its probe did not end within {PROBE_S:.0f} s")
    if probe.returncode == 0:
        rows = [row.rsplit(",", 1) for row in printed.splitlines() if "," in row]
        return Shown(tuple((name.strip(), int(mib) / 1024) for name, mib in rows if mib.strip().isdigit()))
    if "Unable to allocate" in said or "allocation" in said or "submission failed" in said:
        last = said.strip().splitlines()[-1]
        return Shown(problem=last.removeprefix("srun: ").removeprefix("error: "))
    return Shown()  # it ran there, and nvidia-smi did not, or found nothing
