"""How many more jobs Slurm takes of the user, from what slurmctld and accounting say."""

from typing import Any

import pytest

from slurm.room import Cap, Room, parse_associations, parse_qos

# As Slurm 22.05 prints them, with fewer fields.
ASSOCIATIONS = """\
Current Association Manager state
Association Records
Account=root UserName= Partition= ID=1 ParentAccount= DefAssoc=No GrpSubmitJobs=N(25) MaxSubmitJobs=
Account=lab UserName= Partition= ID=3 ParentAccount=root(1) DefAssoc=No GrpSubmitJobs=100(40) MaxSubmitJobs=
Account=vision UserName= Partition= ID=4 ParentAccount=lab(3) DefAssoc=No GrpSubmitJobs=N(25) MaxSubmitJobs=
Account=vision UserName=me(1000) Partition= ID=5 ParentAccount= DefAssoc=Yes GrpSubmitJobs=N(7) MaxSubmitJobs=10
Account=vision UserName=me(1000) Partition=long ID=6 ParentAccount= DefAssoc=No GrpSubmitJobs=N(1) MaxSubmitJobs=2
"""
QOS = """\
QOS Records
QOS=normal(1) GrpSubmitJobs=N(0) MaxWallPJ= Account Limits=No Accounts User Limits=No Users
QOS=short(2) GrpSubmitJobs=50(44) Account Limits= vision={MaxSubmitJobsPA=30(25)} User Limits= \
7={MaxSubmitJobsPU=5(5)} 1000={MaxJobsPU=N(0) MaxSubmitJobsPU=5(3)}
"""
LIMITS = "normal|||\nshort|5|30|50\nnever used|2||\n"


@pytest.fixture
def room() -> Room:
    return Room(list(parse_associations(ASSOCIATIONS)), parse_qos(QOS, LIMITS, "me", 1000), {"vision": "normal"})


def caps(room: Room, **names: Any) -> dict[str, int]:
    """Return what is left of each limit, by whose it is."""
    asked: dict[str, Any] = {"account": None, "qos": None, "partitions": ["gpu"], **names}
    return {cap.whose: cap.left for cap in room.caps(**asked)}


def test_a_user_s_jobs_count_against_the_user_and_every_account_above(room: Room) -> None:
    """Under the default account; a record of another partition does not count."""
    assert caps(room) == {"you in account 'vision'": 3, "account 'lab'": 60}
    assert caps(room, account="lab") == {"account 'lab'": 60}


def test_a_partition_s_own_record_counts_there(room: Room) -> None:
    assert [cap.left for cap in room.caps(account=None, qos=None, partitions=["long"])] == [3, 1, 60]


def test_a_qos_counts_the_user_s_the_account_s_and_all_jobs(room: Room) -> None:
    """Its own, that of the partition, and one that nobody has jobs in, of which slurmctld says nothing."""
    short = {"you in QOS 'short'": 2, "account 'vision' in QOS 'short'": 5, "QOS 'short'": 6}
    assert short.items() <= caps(room, qos="short").items()
    assert short.items() <= caps(room, partition_qos=["short", None]).items()
    assert caps(room, qos="never used")["you in QOS 'never used'"] == 2


def test_newer_slurm_names_users_in_a_qos_otherwise() -> None:
    text = QOS.replace(" 1000={", " me(1000)={")
    assert parse_qos(text, LIMITS, "me", 1000)["short"].used == 3


def test_who_has_no_account_has_no_limits() -> None:
    """Accounting that does not answer, or is off: Slurm's own refusal is the limit."""
    assert Room().caps(account=None, qos="short") == []


def test_a_limit_is_told_with_what_it_counts() -> None:
    assert Cap("QOS 'short'", 5, 0).words == "QOS 'short': at most 5 jobs at a time"
    assert Cap("QOS 'short'", 5, 7).words == "QOS 'short': at most 5 jobs at a time, 7 already waiting or running"
    assert Cap("QOS 'short'", 5, 7).left == 0
