"""Whose a submission's jobs are. What is not seen of another's jobs, or from another cluster, says nothing of them."""

import functools
import os
import pwd
import re
from pathlib import Path

from slurm.commands import NoSuchJob, SlurmError, call, on
from slurm.jobs import ArrayRecord, Origin


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
    """Say why this user may not see the jobs; None if they are this user's own."""
    if origin is None or os.getuid() in (origin.uid, 0):
        return None
    return f"its jobs are {origin.user}'s, who alone is sure to see them"


def still_there(origin: Origin | None, array: ArrayRecord, job: str | None) -> str | None:
    """Ask for an array that no list shows by its number. Say why it may be there all the same; None: Slurm has it not.

    A number that is another's by now is not it. An array that was sent to a cluster by its name is asked for there.
    """
    clusters = array.resources.clusters
    try:
        here = cluster_name()
        if clusters is None and origin is not None and origin.cluster not in (None, here):
            return f"its jobs are on cluster {origin.cluster}, and this is {here}"
        if job is not None and is_named(call(["scontrol", *on(clusters), "-o", "show", "job", job]), array.tag):
            return "is in no list, and scontrol still has it"
    except NoSuchJob:
        return None
    except SlurmError as error:
        return f"is in no list, and that it is gone is not confirmed: {error}"
    return None


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
