"""The daemons of the private cluster: their commands, and how to tell that each is ready. Starts nothing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from slurm.private_cluster.config import NODES, database_sql

SLURMD = "slurmd "  # before the node's name
ADMIN_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))

PROGRAMS = {
    "slurm-wlm": ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "squeue", "scancel", "sacct"),
    "munge": ("munged", "munge"),
}
ACCOUNTING_PROGRAMS = {
    "slurmdbd": ("slurmdbd",),
    "mariadb-server": ("mariadbd", "mariadb", "mariadb-install-db"),
}


class Daemon(NamedTuple):
    """A daemon. question: a command that succeeds once it is ready.

    ready: judges the command's output, given the daemon's start time in seconds since 1970.
    """

    name: str
    command: list[str]
    question: list[str]
    ready: Callable[[str, float], bool]


def missing_packages(*, accounting: bool = True) -> list[str]:
    """List the Debian packages whose programs are missing."""
    programs = {**PROGRAMS, **(ACCOUNTING_PROGRAMS if accounting else {})}
    return [package for package, names in programs.items() if not all(map(find, names))]


def find(program: str) -> str | None:
    """Find a program on PATH or in the sbin folders."""
    return shutil.which(program, path=ADMIN_PATH)


def stages(folder: Path, *, accounting: bool, database_port: int, password: str) -> list[list[Daemon]]:
    """List the daemons in starting order; those of one stage start together."""
    munged = Daemon(
        "munged",
        # --force: munged refuses a socket below folders that others can write to, such as /tmp.
        [
            *("munged", "-F", "--force", f"--key-file={folder}/etc/munge.key", f"--seed-file={folder}/run/munge.seed"),
            *(f"--socket={folder}/run/munge.sock", f"--pid-file={folder}/run/munged.pid"),
            f"--log-file={folder}/log/munged.log",
        ],
        ["munge", "-S", f"{folder}/run/munge.sock", "-n"],
        _any_answer,
    )
    mariadbd = Daemon(
        "mariadbd",
        [
            *("mariadbd", "--no-defaults", "--user=root", f"--datadir={folder}/db", f"--socket={folder}/run/db.sock"),
            *("--bind-address=127.0.0.1", f"--port={database_port}", f"--pid-file={folder}/run/db.pid"),
            *("--skip-log-bin", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"),
        ],
        ["mariadb", "--no-defaults", "--user=root", f"--socket={folder}/run/db.sock", "-e", database_sql(password)],
        _any_answer,
    )
    slurmdbd = Daemon("slurmdbd", ["slurmdbd", "-D"], ["sacctmgr", "-n", "show", "cluster"], _any_answer)
    # -i: 26.05 refuses to start on the state of one that was killed before it first wrote all of its files.
    slurmctld = Daemon(
        "slurmctld", ["slurmctld", "-D", "-i"], ["scontrol", "ping"], lambda answer, _: " is UP" in answer
    )
    slurmds = [
        Daemon(SLURMD + node, ["slurmd", "-D", "-N", node], ["scontrol", "-o", "show", "node", node], _registered)
        for node in NODES
    ]
    return [[munged, mariadbd], [slurmdbd], [slurmctld], slurmds] if accounting else [[munged], [slurmctld], slurmds]


def install_database(folder: Path) -> list[str]:
    """Return the command that creates an empty database, open only to root through the unix socket."""
    return [
        *("mariadb-install-db", "--no-defaults", f"--datadir={folder}", "--user=root", "--skip-test-db"),
        *("--auth-root-authentication-method=socket", "--auth-root-socket-user=root"),
    ]


def _any_answer(answer: str, started: float) -> bool:
    return True


def _registered(answer: str, started: float) -> bool:
    """Tell whether a slurmd has registered since its start; slurmctld's saved state may show it as idle before."""
    fields = dict(word.partition("=")[::2] for word in answer.split())
    slurmd_start = fields.get("SlurmdStartTime", "")
    state = fields.get("State", "UNKNOWN")
    responding = not any(flag in state for flag in ("UNKNOWN", "NOT_RESPONDING", "DOWN", "*"))
    return responding and slurmd_start.isdigit() and int(slurmd_start) >= int(started)
