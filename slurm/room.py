"""How many more jobs Slurm would take of the user: each limit on submitted jobs, less the jobs that count already.

slurmctld itself says both, in `scontrol show assoc_mgr`; of a QOS nobody has jobs in it says nothing, so accounting is
asked for the limits of those. A task of an array counts as a job, also while it waits.
"""

import os
import pwd
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from slurm.commands import SlurmError, call, on

_DEFAULT_QOS = "normal"  # where accounting names none


class Cap(NamedTuple):
    """A limit on submitted jobs. whose: in a user's words, "you in QOS 'short'"; used: the jobs that count already."""

    whose: str
    most: int
    used: int

    @property
    def left(self) -> int:
        return max(0, self.most - self.used)

    @property
    def words(self) -> str:
        count = f", {self.used:,} already waiting or running" if self.used else ""
        return f"{self.whose}: at most {self.most:,} jobs at a time{count}"


class Association(NamedTuple):
    """A record of accounting's tree. user: None for the account itself; partition: None for all of them.

    parent: the account above, None at the top and in a user's record. most: jobs the user may have; together: all whose
    records are below; used: jobs that count in both.
    """

    account: str
    user: str | None
    partition: str | None
    parent: str | None
    default: bool
    most: int | None
    together: int | None
    used: int


class Qos(NamedTuple):
    """What a QOS allows of jobs: a user, an account, and all of them; and those that the user and others have."""

    user: int | None = None
    account: int | None = None
    together: int | None = None
    used: int = 0
    used_by_account: Mapping[str, int] = {}
    used_together: int = 0


class Room(NamedTuple):
    """What counts for the user's jobs. qos_of: the default QOS of an account."""

    associations: Sequence[Association] = ()
    qos: Mapping[str, Qos] = {}
    qos_of: Mapping[str, str] = {}

    def caps(
        self,
        *,
        account: str | None,
        qos: str | None,
        partitions: Collection[str] = (),
        partition_qos: Collection[str | None] = (),
    ) -> list[Cap]:
        """The limits that hold for jobs under these names; None stands for the user's default.

        partition_qos: the QOS that the partitions have of their own.
        """
        own = [found for found in self.associations if found.user is not None]
        account = account or next((found.account for found in own if found.default), None)
        if account is None:
            return []
        names = dict.fromkeys((qos or self.qos_of.get(account) or _DEFAULT_QOS, *filter(None, partition_qos)))
        return [
            *self._of_account(account, partitions),
            *(cap for name in names if name in self.qos for cap in _of_qos(name, self.qos[name], account)),
        ]

    def _of_account(self, account: str, partitions: Collection[str]) -> Iterator[Cap]:
        by_account = {found.account: found for found in self.associations if found.user is None}
        for found in self.associations:
            if found.user is not None and found.account == account and found.partition in (None, *partitions):
                for most in filter(None, (found.most, found.together)):
                    yield Cap(f"you in account '{account}'", most, found.used)
        above: str | None = account
        for _ in by_account:
            record = by_account.get(above or "")
            if record is None:
                return
            if record.together is not None:
                yield Cap(f"account '{record.account}'", record.together, record.used)
            above = record.parent


def read_room(clusters: str | None = None, name: str | None = None) -> Room:
    """Ask Slurm. Where it does not answer there is no limit to be known of, and Slurm's own refusal is the limit.

    clusters: another one than Slurm's commands speak to; name: of the one that is asked, where it is known.
    """
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
        shown = call(["scontrol", *on(clusters), "-o", "show", "assoc_mgr", f"users={user}", "flags=assoc,qos"])
        limits = call(["sacctmgr", "-nP", "show", "qos", "format=name,maxsubmitpu,maxsubmitpa,grpsubmit"])
        where = [f"user={user}", *([f"cluster={name}"] if name else [])]
        defaults = call(["sacctmgr", "-nP", "show", "assoc", "where", *where, "format=account,defaultqos"])
    except (KeyError, SlurmError):
        return Room()
    qos_of = dict(line.split("|")[:2] for line in defaults.splitlines() if line.count("|"))
    return Room(list(parse_associations(shown)), parse_qos(shown, limits, user, uid), qos_of)


def parse_associations(shown: str) -> Iterator[Association]:
    """Read the records of accounts and users in `scontrol -o show assoc_mgr`, a line each."""
    for line in shown.splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "Account" not in words or "GrpSubmitJobs" not in words:
            continue
        together, used = _limit_and_use(words["GrpSubmitJobs"])
        yield Association(
            account=words["Account"],
            user=_name(words.get("UserName", "")),
            partition=words.get("Partition") or None,
            parent=_name(words.get("ParentAccount", "")),
            default=words.get("DefAssoc") == "Yes",
            most=_limit_and_use(words.get("MaxSubmitJobs", ""))[0],
            together=together,
            used=used,
        )


def parse_qos(shown: str, limits: str, user: str, uid: int) -> dict[str, Qos]:
    """Read the limits of each QOS as sacctmgr prints them, "short|5||20", and their use from `show assoc_mgr`."""
    found = {}
    for line in filter(None, limits.splitlines()):
        name, *numbers = line.split("|")
        mine, account, together = (int(number) if number.isdigit() else None for number in [*numbers, "", "", ""][:3])
        found[name] = Qos(mine, account, together)
    for line in shown.splitlines():
        named = re.match(r"QOS=(.+?)\(\d+\)", line)
        if named is None or named[1] not in found:
            continue
        accounts, _, users = line.partition("User Limits=")
        everyone = re.search(r"\bGrpSubmitJobs=(\S+)", line)
        own = _uses(users, "MaxSubmitJobsPU")
        found[named[1]] = found[named[1]]._replace(
            used=next((own[key] for key in (str(uid), user, f"{user}({uid})") if key in own), 0),
            used_by_account=_uses(accounts, "MaxSubmitJobsPA"),
            used_together=_limit_and_use(everyone[1])[1] if everyone else 0,
        )
    return found


def _of_qos(name: str, qos: Qos, account: str) -> Iterator[Cap]:
    for whose, most, used in (
        (f"you in QOS '{name}'", qos.user, qos.used),
        (f"account '{account}' in QOS '{name}'", qos.account, qos.used_by_account.get(account, 0)),
        (f"QOS '{name}'", qos.together, qos.used_together),
    ):
        if most is not None:
            yield Cap(whose, most, used)


def _uses(text: str, key: str) -> dict[str, int]:
    """Read "lab={MaxJobsPA=N(0) … MaxSubmitJobsPA=N(5) …}" into jobs by name."""
    return {
        name: _limit_and_use(word)[1]
        for name, block in re.findall(r"(\S+)=\{([^}]*)\}", text)
        for word in re.findall(rf"\b{key}=(\S+)", block)
    }


def _limit_and_use(word: str) -> tuple[int | None, int]:
    """Read "20(5)", "N(5)", "20" or "" into a limit, None for none, and the jobs that count in it."""
    found = re.fullmatch(r"(\d+|N)?(?:\((\d+)\))?", word)
    if found is None:
        return None, 0
    return (int(found[1]) if found[1] and found[1] != "N" else None), int(found[2] or 0)


def _name(word: str) -> str | None:
    """Read "root(0)" into a name, "" into None."""
    return re.sub(r"\(\d+\)$", "", word) or None
