"""Whose a submission's jobs are. What is not seen of another's jobs, or from another cluster, says nothing of them."""

import functools
import os
import pwd
import re
from pathlib import Path

from slurm.commands import SlurmError, call
from slurm.jobs import Origin


def origin_here(folder: Path) -> Origin:
    """Describe this user, cluster and folder of submissions. Raises OSError."""
    try:
        cluster = cluster_name()
    except SlurmError:
        cluster = None
    uid = os.getuid()
    return Origin(user=user_name(uid), uid=uid, cluster=cluster, folder=str(folder), inode=folder.stat().st_ino)


def is_copy(origin: Origin | None, folder: Path) -> bool:
    """Whether a folder of submissions is a copy of the one that the jobs were sent from, and so owns none of them."""
    if origin is None or str(folder) == origin.folder:
        return False
    try:
        return folder.stat().st_ino != origin.inode
    except OSError:
        return False


def unseen(origin: Origin | None) -> str | None:
    """Say why this user may not see the jobs; None if they are this user's own. The administrator sees them all."""
    whose = None if os.getuid() == 0 else owner(origin)
    return whose and f"its jobs are {whose}'s, who alone is sure to see them"


def owner(origin: Origin | None) -> str | None:
    """Name the other user whose jobs they are; None if they are this user's own."""
    return None if origin is None or os.getuid() == origin.uid else origin.user


def is_named(shown: str, tag: str) -> bool:
    """Whether `scontrol show job` shows a job of this name."""
    return bool(re.search(rf"\bJobName={re.escape(tag)}\s", shown))


@functools.cache
def cluster_name() -> str | None:
    """The name of the cluster that Slurm's commands speak to. Raises SlurmError."""
    found = re.search(r"^ClusterName\s*=\s*(\S+)", call(["scontrol", "show", "config"]), re.MULTILINE)
    return found[1] if found else None


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
