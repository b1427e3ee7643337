"""Ask Slurm itself whether it takes a pool's jobs, by `sbatch --test-only`: its policies have the last word."""

import re
import time
from datetime import datetime
from pathlib import Path

from slurm.commands import Refused, SlurmError
from slurm.jobs import Resources
from slurm.submission import trial
from sweep.doctor.check import Check, Verdict

NOW_S = 60.0  # a start within this is now: schedulers take turns, and clocks differ
# The keys of a pool that a refusal is about, by a word of it; Slurm has no code for it that sbatch prints.
ABOUT = {
    "account": "'account'",
    "qos": "'qos'",
    "partition": "'partition'",
    "memory": "'memory_gb'",
    "time": "'time_limit_min'",
    "feature": "'constraint'",
    "gres": "'gres'",
    "processors": "'cpus'",
    "node configuration": "'gres', 'constraint', 'cpus', 'memory_gb'",
    "license": "'licenses' of 'sbatch'",
    "reservation": "'reservation' of 'sbatch'",
}


def try_pool(name: str, wanted: Resources, folder: Path, where: str, *, held_up: bool = False) -> Check:
    """What Slurm says to a job of a pool. folder: where submissions would be; where: the file that has the pool.

    held_up: it is known that none can start now, and Slurm may refuse it for that.
    """
    title = f"sbatch {name}"
    try:
        start_s = trial(wanted, folder)
    except Refused as refusal:
        if held_up:
            words = f"Slurm refuses its jobs now: {refusal}"
            return Check(title, Verdict.WARNING, words, "repeat 'sweep doctor' when nothing holds the pool up any more")
        remedy = f"edit {_about(str(refusal))} of pool '{name}' in {where}"
        return Check(title, Verdict.PROBLEM, f"Slurm refuses its jobs: {refusal}", remedy)
    except SlurmError as error:
        return Check(title, Verdict.SKIPPED, f"whether Slurm takes its jobs is not known: {error}")
    if held_up or start_s is None:
        return Check(title, Verdict.OK, "Slurm takes its jobs")
    late = start_s - time.time() > NOW_S
    begins = f"at {datetime.fromtimestamp(start_s):%Y-%m-%d %H:%M}" if late else "at once"
    return Check(title, Verdict.OK, f"Slurm takes its jobs; one that is sent now could start {begins}")


def _about(refusal: str) -> str:
    option = re.search(r"option '--([\w-]+)", refusal)
    if option:
        return f"'{option[1]}' of 'sbatch'"
    return " or ".join(keys for word, keys in ABOUT.items() if word in refusal.lower()) or "the keys"
