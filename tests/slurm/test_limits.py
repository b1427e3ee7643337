"""What a cluster allows is read in Slurm's own words; what a pool asks beyond it is said before it is submitted."""

from typing import Any

import pytest

from slurm.commands import SlurmError
from slurm.fit import delays, problems, unchecked, words_of
from slurm.limits import (
    ClusterLimits,
    PartitionLimits,
    parse_associations,
    parse_caps,
    parse_config,
    parse_default,
    parse_gres,
    parse_minutes,
    parse_partitions,
    takes_jobs,
)
from slurm.pools import Pool, several_gpus
from slurm.submission import resources

# Recorded from Slurm 22.05.8. night is inactive, `none` has no nodes, v100-2 is larger and has GPUs of two types.
SINFO = """\
gpu|up|7-00:00:00|1|16|64000|gpu:p100:4|p100|idle
gpu|up|7-00:00:00|1|16|64000|gpu:v100:4|v100,v100-16gb,skylake|idle
gpu|up|7-00:00:00|1|32|128000|gpu:v100:2,gpu:p100:1|v100,v100-32gb|idle
cpu|up|infinite|1|16|64000|(null)|(null)|idle
night|inactive|8:30:00|1|16|64000|(null)|(null)|idle
night|inactive|8:30:00|1|16|64000|gpu:p100:4|p100|idle
none|up|30:00|0|0|0|(null)|(null)|n/a
"""

PARTITIONS = (
    "PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A "
    "DefaultTime=01:00:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED "
    "MaxTime=7-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=p100-1,v100-[1-2] PriorityJobFactor=1 "
    "PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=64 "
    "TotalNodes=3 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerCPU=500 MaxMemPerNode=UNLIMITED "
    "TRES=cpu=64,mem=250G,node=3,billing=64,gres/gpu=11,gres/gpu:p100=5,gres/gpu:v100=6\n"
    "PartitionName=cpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A "
    "DefaultTime=01:00:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED "
    "MaxTime=UNLIMITED MinNodes=0 LLN=NO MaxCPUsPerNode=8 Nodes=cpu-1 PriorityJobFactor=1 PriorityTier=1 RootOnly=NO "
    "ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=16 TotalNodes=1 "
    "SelectTypeParameters=NONE JobDefaults=(null) DefMemPerCPU=500 MaxMemPerNode=32000 "
    "TRES=cpu=16,mem=62.50G,node=1,billing=16\n"
)

CONFIG = """\
Configuration data as of 2026-11-23T00:11:59
AccountingStorageBackupHost = (null)
AccountingStorageEnforce = associations,limits,qos
ClusterName             = lab
MaxArraySize            = 20001
MaxJobCount             = 50000
MaxMemPerNode           = UNLIMITED
MessageTimeout          = 5 sec
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at localhost is UP
"""


@pytest.fixture(scope="module")
def partitions() -> dict[str, PartitionLimits]:
    return parse_partitions(SINFO, parse_caps(PARTITIONS))


@pytest.fixture(scope="module")
def limits(partitions: dict[str, PartitionLimits]) -> ClusterLimits:
    return ClusterLimits(20001, 50000, 5.0, partitions)


def pool(partition: str | None = "gpu", **changes: Any) -> Pool:
    return Pool(device="v100", partition=partition, **changes)


def test_the_configuration_is_read_with_its_units_left_on() -> None:
    """Keys and values as scontrol prints them; what is not a setting is passed over."""
    config = parse_config(CONFIG)
    assert config["MaxArraySize"] == "20001"
    assert config["MessageTimeout"] == "5 sec"
    assert config["AccountingStorageEnforce"] == "associations,limits,qos"
    assert len(config) == 8


def test_a_partition_is_the_sum_of_its_groups_of_nodes(partitions: dict[str, PartitionLimits]) -> None:
    """Largest node, largest count of each GPU type, all features, all nodes."""
    gpu = partitions["gpu"]
    assert (gpu.up, gpu.time_limit_min, gpu.nodes, gpu.node_cpus, gpu.node_memory_gb) == (True, 10080, 3, 32, 125.0)
    assert gpu.gres == {"gpu:p100": 4, "gpu:v100": 4}
    assert gpu.features == {"p100", "v100", "v100-16gb", "v100-32gb", "skylake"}
    assert (gpu.max_memory_gb, gpu.max_cpus) == (None, None)


def test_limits_a_partition_sets_itself_are_kept(partitions: dict[str, PartitionLimits]) -> None:
    """MaxMemPerNode, MaxCPUsPerNode, no time limit, inactive, and a partition without nodes."""
    cpu = partitions["cpu"]
    assert (cpu.time_limit_min, cpu.max_memory_gb, cpu.max_cpus, cpu.gres) == (None, 31.25, 8, {})
    assert cpu.features == frozenset()
    assert not partitions["night"].up
    assert (partitions["none"].nodes, partitions["none"].time_limit_min) == (0, 30)


def test_the_clusters_memory_limit_holds_where_a_partition_has_none() -> None:
    """MaxMemPerNode of slurm.conf is what Slurm falls back to."""
    assert parse_caps(PARTITIONS, 48000) == {"gpu": (48000, None, None), "cpu": (32000, 8, None)}


@pytest.mark.parametrize("row", ["gpu|up|7-00:00:00|1|16", "gpu|up|soon|1|16|64000|(null)|(null)|idle"])
def test_rows_of_another_shape_are_an_error(row: str) -> None:
    """Not a cluster without partitions."""
    with pytest.raises(SlurmError, match="sinfo printed what is not understood"):
        parse_partitions(row, {})


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("(null)", {}),
        ("", {}),
        ("gpu", {"gpu": 1}),
        ("gpu:2", {"gpu": 2}),
        ("gpu:v100", {"gpu:v100": 1}),
        ("gpu:v100:4", {"gpu:v100": 4}),
        ("gpu:v100:4(S:0-1)", {"gpu:v100": 4}),
        ("gpu:a100:2(S:0),gpu:a100:2(S:1)", {"gpu:a100": 4}),
        ("gpu:v100:2(S:0-1,3),lscratch:1800G", {"gpu:v100": 2, "lscratch": 1800 * 2**30}),
        ("gres:gpu:1", {"gpu": 1}),
        ("gres/gpu:v100:1", {"gpu:v100": 1}),
        ("gpu:tesla:no_consume:4", {"gpu:tesla": 4}),
    ],
)
def test_gres_is_read_as_clusters_write_it(text: str, counts: dict[str, int]) -> None:
    """With and without type, count, sockets and unit."""
    assert parse_gres(text) == counts


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("infinite", None),
        ("UNLIMITED", None),
        ("n/a", None),
        ("7-00:00:00", 10080),
        ("1-12:30:00", 2190),
        ("8:30:00", 510),
        ("30:00", 30),
        ("0:45", 0),
    ],
)
def test_time_limits_are_read_in_every_form(text: str, minutes: int | None) -> None:
    """days-hours:minutes:seconds, its leading parts left out, or no limit."""
    assert parse_minutes(text) == minutes


def test_associations_are_read() -> None:
    """As sacctmgr prints them; an empty field is no limit, other text an error."""
    lab, root = parse_associations("lab|normal,short\nroot|normal\n")
    assert (lab.account, lab.qos) == ("lab", {"normal", "short"})
    assert root.qos == {"normal"}
    assert parse_associations("") == []
    with pytest.raises(SlurmError, match="sacctmgr printed"):
        parse_associations("sacctmgr: something new\n")


@pytest.mark.parametrize("state", ["idle", "mixed", "allocated", "completing", "idle~", "mixed#", "reserved"])
def test_nodes_in_service_take_jobs(state: str) -> None:
    """Also when they are full, or asleep to save power."""
    assert takes_jobs(state)


@pytest.mark.parametrize("state", ["down", "down*", "drained", "draining", "DRAINED*", "fail", "maint", "unknown"])
def test_nodes_out_of_service_take_none(state: str) -> None:
    """Whatever sign follows the state."""
    assert not takes_jobs(state)


@pytest.mark.parametrize("constraint", ["a&b|c", "[a|b|c]", "a*2&b*1&c", "(a|b)&c", "a,b,c"])
def test_every_feature_of_an_expression_is_found(constraint: str) -> None:
    """Slurm refuses a job if one of them exists nowhere, also one behind an 'or'."""
    assert words_of(constraint) == ["a", "b", "c"]


FITTING = {
    "a pool as the example's": pool(gres="gpu:v100:1", constraint="v100-16gb", cpus=4, memory_gb=16),
    "any GPU": pool(gres="gpu:4"),
    "either feature": pool(gres="gpu:v100:1", constraint="v100-32gb|v100-16gb"),
    "the whole of the largest node": pool(cpus=32, memory_gb=125, gres="gpu:v100:2,gpu:p100:1", time_limit_min=10080),
    "a second partition that has it": pool("cpu,gpu", gres="gpu:v100:1"),
    "no limit": pool("cpu", time_limit_min=1_000_000),
    "the site's time": pool(time_limit_min=None),
}


@pytest.mark.parametrize("case", FITTING)
def test_a_pool_that_fits_has_no_problems(case: str, limits: ClusterLimits) -> None:
    """No false alarm."""
    assert problems(FITTING[case], limits) == []


BEYOND = {
    "no such partition": (pool("gpux"), "partition 'gpux' does not exist; did you mean 'gpu'?"),
    "one of two absent": (pool("gpu,gpux"), "partition 'gpux' does not exist; did you mean 'gpu'?"),
    "nothing like it": (pool("zzz"), "partition 'zzz' does not exist; expected one of: cpu, gpu, night, none"),
    "empty": (pool("none", time_limit_min=30), "partition 'none' has no nodes"),
    "too long": (
        pool(time_limit_min=20000),
        "time_limit_min is 20000, partition 'gpu' allows 10080: its jobs would wait for ever; "
        "set 'time_limit_min: 10080'",
    ),
    "no such type": (
        pool(gres="gpu:a100:1"),
        "gres 'gpu:a100' is on no node of partition 'gpu'; did you mean 'gpu:v100'?",
    ),
    "no GPU at all": (pool("cpu", gres="gpu:1"), "gres 'gpu' is on no node of partition 'cpu'"),
    "too many": (
        pool(gres="gpu:v100:5"),
        "gres asks for 5 gpu:v100, a node of partition 'gpu' has 4 at most; set 'gres: gpu:v100:4'",
    ),
    "misspelt feature": (
        pool(constraint="v100-16g|p100"),
        "constraint: no node of partition 'gpu' has the feature 'v100-16g'; did you mean 'v100-16gb'?",
    ),
    "no features": (pool("cpu", constraint="fast"), "has the feature 'fast'; there are none: leave it out"),
    "memory": (pool(memory_gb=126), "memory_gb is 126; in partition 'gpu' a job may have 125 GB of a node"),
    "memory of the partition": (
        pool("cpu", memory_gb=32),
        "memory_gb is 32; in partition 'cpu' a job may have 31.25 GB of a node; set 'memory_gb: 31'",
    ),
    "cpus": (pool("cpu", cpus=9), "cpus is 9; in partition 'cpu' a job may have 8 CPUs of a node; set 'cpus: 8'"),
    "not on one node": (
        pool(gres="gpu:v100:4", constraint="v100-32gb"),
        "no node of partition 'gpu' has all of it together (gres gpu:v100:4, constraint v100-32gb",
    ),
}


@pytest.mark.parametrize("case", BEYOND)
def test_what_a_pool_asks_beyond_the_cluster_is_said_once(case: str, limits: ClusterLimits) -> None:
    """One sentence, with what to write instead."""
    asked, words = BEYOND[case]
    found = problems(asked, limits)
    assert len(found) == 1
    assert words in found[0]


def test_a_pool_that_names_no_partition_is_held_against_the_default_one(limits: ClusterLimits) -> None:
    """Where the cluster has no such, nothing is found wrong, and that nothing could be checked is said."""
    known = limits._replace(default_partition=parse_default(PARTITIONS))
    asked = pool(None, gres="gpu:1", time_limit_min=None)
    assert problems(asked, known) == problems(pool("cpu", gres="gpu:1"), known) != []
    assert delays(pool(None), known._replace(default_partition="night")) == delays(pool("night"), known) != []
    assert unchecked(asked, known) is None
    assert parse_default(PARTITIONS.replace("Default=YES", "Default=NO")) is None
    assert problems(asked, limits) == delays(asked, limits) == []
    assert "whether its jobs fit is not known" in (unchecked(asked, limits) or "")


def test_a_pool_on_another_cluster_is_held_against_that_one(limits: ClusterLimits) -> None:
    """Partitions of one name are two where clusters are two."""
    small = limits._replace(partitions={"gpu": limits.partitions["cpu"]._replace(name="gpu")})
    both = small._replace(others={"other": limits})
    asked = pool(gres="gpu:v100:1")
    there = asked.model_copy(update={"clusters": "other"})
    assert len(problems(asked, both)) == 1
    assert problems(there, both) == []
    of_each = [both._replace(max_jobs=7).caps(resources(each, 1)) for each in (asked, there)]
    assert [(cap.whose, cap.most) for [cap] in of_each] == [("the cluster", 7), ("on other, the cluster", 50000)]


def test_several_things_wrong_are_all_said(limits: ClusterLimits) -> None:
    """So that one edit mends them."""
    assert len(problems(pool("cpu", gres="gpu:1", cpus=9, memory_gb=99), limits)) == 3


def test_runs_that_share_a_job_ask_for_their_sum(limits: ClusterLimits) -> None:
    """A pool that fits one run may be too small for four."""
    asked = pool(gres="gpu:v100:1", cpus=10, memory_gb=30)
    assert problems(asked, limits, workers=2) == []
    assert problems(asked, limits, workers=4) == [
        "cpus is 10, times 4 runs a job; in partition 'gpu' a job may have 32 CPUs of a node; "
        "set 'cpus: 8' or lower 'runs_per_gpu'"
    ]


def test_a_run_on_several_gpus_asks_for_their_sum(limits: ClusterLimits) -> None:
    """As many GPUs, and as many times the CPUs and memory; what is too much for a node names the key to lower."""
    asked = pool(gres="gpu:v100:1", cpus=3, memory_gb=8)
    assert problems(asked, limits, gpus=4) == []
    assert problems(asked, limits, gpus=5) == [
        "gres asks for 5 gpu:v100, a node of partition 'gpu' has 4 at most; lower 'gpus_per_run'"
    ]
    assert problems(pool(gres="gpu:v100:1", memory_gb=40), limits, gpus=4) == [
        "memory_gb is 40, times 4 GPUs a run; in partition 'gpu' a job may have 125 GB of a node; "
        "set 'memory_gb: 31' or lower 'gpus_per_run'"
    ]


@pytest.mark.parametrize(
    ("gres", "asked"),
    [
        ("gpu:v100:1", "gpu:v100:4"),
        ("gpu:1", "gpu:4"),
        ("gpu", "gpu:4"),
        ("gpu:v100", "gpu:v100:4"),
        ("gpu:v100:2,nvme:100", "gpu:v100:4,nvme:100"),
        (None, None),
    ],
)
def test_gpus_are_counted_in_a_pools_own_words(gres: str | None, asked: str | None) -> None:
    """Whatever the pool's count is: it is that of a run on one GPU."""
    assert several_gpus(gres, 4) == asked
    assert several_gpus(gres, 1) == gres


def test_a_job_on_several_gpus_is_one_task_with_all_of_it() -> None:
    """So that Slurm signals, kills and requeues the processes together."""
    found = resources(pool(gres="gpu:v100:1", cpus=4, memory_gb=16), workers=1, gpus=4)
    assert (found.gres, found.cpus, found.memory_gb) == ("gpu:v100:4", 16, 64)


def test_a_pool_whose_nodes_are_all_out_of_service_is_told() -> None:
    """Its jobs would wait without an end in sight."""
    rows = SINFO.replace("v100,v100-16gb,skylake|idle", "v100,v100-16gb,skylake|drained")
    limits = ClusterLimits(1001, 10000, 10.0, parse_partitions(rows, {}))
    assert problems(pool(constraint="v100-16gb"), limits) == []
    assert delays(pool(constraint="v100-16gb"), limits) == [
        "the nodes of partition 'gpu' that fit are all down or drained (1); 'sinfo -R -p gpu' says why"
    ]
    assert delays(pool(gres="gpu:v100:1"), limits) == []


def test_a_partition_that_takes_no_jobs_delays_what_fits_it(limits: ClusterLimits) -> None:
    """Submitting into it is no mistake: the jobs wait."""
    assert delays(pool("night"), limits) == ["partition 'night' takes no jobs now; its jobs wait until it does"]
    assert problems(pool("night"), limits) == []
