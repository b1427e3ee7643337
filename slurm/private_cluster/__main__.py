"""`python -m slurm.private_cluster start FOLDER`, `stop FOLDER`, `status FOLDER`: the private Slurm cluster.

`start` prints only the export line to stdout, for a shell to evaluate; explanations go to stderr. Exit codes: 0 done
(`status`: everything runs) · 1 failed (`status`: something does not run) · 2 wrong call.
"""

import argparse
import sys
import time
from pathlib import Path

from slurm.private_cluster.cluster import PrivateCluster
from slurm.private_cluster.daemons import SLURMD
from slurm.private_cluster.folder import HomeError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m slurm.private_cluster", description="A private Slurm cluster, in a folder."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in (("start", "start it"), ("stop", "end it; its jobs' states stay"), ("status", "look at it")):
        command = commands.add_parser(name, help=purpose)
        command.add_argument("folder", type=Path, metavar="FOLDER")
    commands.choices["start"].add_argument(
        "--no-accounting", action="store_true", help="a new one without slurmdbd and MariaDB: sacct will not answer"
    )
    call = parser.parse_args(arguments)
    cluster = PrivateCluster(call.folder)
    try:
        if call.command == "start":
            return _start(cluster, accounting=False if call.no_accounting else None)
        return _stop(cluster) if call.command == "stop" else _status(cluster)
    except HomeError as error:
        print(f"slurm.private_cluster: {error}", file=sys.stderr)
        return 1


def _start(cluster: PrivateCluster, accounting: bool | None) -> int:
    before = time.monotonic()
    started = cluster.start(accounting=accounting)
    if started:
        print(f"started {', '.join(started)} in {time.monotonic() - before:.1f} s", file=sys.stderr)
    else:
        print(f"{cluster.folder}: is already running", file=sys.stderr)
    print(f"export SLURM_CONF={cluster.slurm_conf}")
    print(
        f"For Slurm's commands and 'sweep' to use it, run the line above, or: . {cluster.folder}/activate\n"
        "Then: sinfo; in sweep files: cluster: {file: local}\n"
        f"End it with: python -m slurm.private_cluster stop {cluster.folder}",
        file=sys.stderr,
    )
    return 0


def _stop(cluster: PrivateCluster) -> int:
    ended = cluster.stop()
    print(f"ended {', '.join(ended)}" if ended else f"{cluster.folder}: nothing is running", file=sys.stderr)
    return 0


def _status(cluster: PrivateCluster) -> int:
    daemons = cluster.daemons()
    if not daemons:
        print(f"{cluster.folder}: no cluster; make one with: python -m slurm.private_cluster start {cluster.folder}")
        return 1
    nodes = cluster.nodes() if daemons["munged"] and daemons["slurmctld"] else {}
    for name, process in daemons.items():
        state = nodes.get(name.removeprefix(SLURMD), "")
        print(f"{name:<15} {f'pid {process.pid}' if process else 'not running':<12} {state}".rstrip())
    return 0 if all(daemons.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
