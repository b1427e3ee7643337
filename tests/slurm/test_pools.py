"""A pool says what its jobs ask for: by keys of its own, and by any option that sbatch takes."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from slurm.fit import problems
from slurm.jobs import ArrayRecord
from slurm.limits import ClusterLimits, parse_partitions
from slurm.pools import Pool
from slurm.submission import resources, script
from sweep.cli.tables import array_line


def pool(**keys: Any) -> Pool:
    return Pool.model_validate({"device": "v100", "partition": "gpu", **keys})


def array(found: Pool) -> ArrayRecord:
    return ArrayRecord(tag="study.a-1.0", pool="p", resources=resources(found, 1), tasks=[["run"]])


def written(found: Pool, tmp_path: Path) -> list[str]:
    """List the options in the script of a job in the pool."""
    lines = script(array(found), tmp_path, tmp_path / "bundle.json", max_parallel=None).splitlines()
    return [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]


def test_options_reach_sbatch_as_they_are(tmp_path: Path) -> None:
    """Numbers, words with spaces, switches; one that is off is not there."""
    options = {"gpus-per-node": 2, "licenses": "matlab:1", "exclusive": True, "overcommit": False, "mcs-label": "a b"}
    found = written(pool(sbatch=options), tmp_path)
    assert {"gpus-per-node=2", "licenses=matlab:1", "exclusive", "mcs-label='a b'"} <= set(found)
    assert not any(line.startswith("overcommit") for line in found)
    assert "--gpus-per-node=2, --licenses=matlab:1, --exclusive" in array_line(array(pool(sbatch=options)))


def test_a_site_that_gives_memory_by_itself_is_asked_for_none(tmp_path: Path) -> None:
    found = pool(memory_gb=None)
    assert not any(line.startswith("mem=") for line in written(found, tmp_path))
    assert any(line.startswith("mem=") for line in written(pool(), tmp_path))
    rows = parse_partitions("gpu|up|infinite|1|16|1|(null)|(null)|idle", {})
    assert problems(found, ClusterLimits(1001, 1000, 10.0, rows)) == []
    assert " GB" not in array_line(array(found))


def test_what_a_pool_leaves_to_the_site_is_not_asked_for(tmp_path: Path) -> None:
    """Neither partition nor time; the warning before the end comes as early as a limit of some length allows."""
    options = {line.partition("=")[0]: line for line in written(Pool(device="cpu", time_limit_min=None), tmp_path)}
    assert not {"partition", "time", "gres", "account", "qos"} & options.keys()
    assert options["signal"] == "signal=USR2@90"


@pytest.mark.parametrize(
    ("export", "option"), [("all", None), ("none", "export=NONE"), (["HOME", "LANG"], "export=HOME,LANG")]
)
def test_a_job_gets_the_variables_its_pool_names(tmp_path: Path, export: str | list[str], option: str | None) -> None:
    """And its task what the job's script has, whatever was exported into that."""
    asked = pool(export=export)
    assert [line for line in written(asked, tmp_path) if line.startswith("export")] == [option] * (option is not None)
    command = script(array(asked), tmp_path, tmp_path / "bundle.json", max_parallel=None).splitlines()[-1]
    assert command.startswith("srun ")
    assert " --export=ALL " in command


def test_a_cluster_is_named_as_slurm_names_it(tmp_path: Path) -> None:
    """In what is sent and in what is said of it before."""
    asked = pool(clusters="Other", container={"image": "/images/torch.sif"})
    assert "clusters=other" in written(asked, tmp_path)
    assert "; cluster other, partition gpu, in /images/torch.sif; " in array_line(array(asked))


def test_nodes_are_left_out(tmp_path: Path) -> None:
    assert "exclude=n1,n2" in written(pool(exclude=["n1", "n2"]), tmp_path)


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [(90, 90), ("90", 90), ("90:30", 90), ("1:30:00", 90), ("2-0", 2880), ("1-12:15", 2175), ("1-12:00:00", 2160)],
)
def test_time_limits_are_given_in_minutes_or_as_slurm_does(limit: int | str, minutes: int) -> None:
    assert pool(time_limit_min=limit).time_limit_min == minutes


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"sbatch": {"mem": "4G"}}, "'mem' has a key of its own in a pool: 'memory_gb'"),
        ({"sbatch": {"export": "NONE"}}, "'export' has a key of its own in a pool: 'export'"),
        ({"export": ["A=1"]}, "'A=1' is no variable's name; a line of 'setup' sets one"),
        ({"export": ["HOME", "NONE"]}, "'NONE' is not for a list; write 'export: all' or 'export: none'"),
        ({"export": ["SLURM_JOB_ID"]}, "'SLURM_JOB_ID' is Slurm's, and no job gets the submitter's"),
        ({"export": "nothing"}, "give 'all', 'none' or a list of variables' names"),
        ({"export": []}, "give 'all', 'none' or a list of variables' names"),
        ({"modules": ["-f cuda"]}, "'-f cuda' is no module's name, such as 'cuda/12.1'"),
        ({"sbatch": {"array": "0-3"}}, "'array' is this program's to set; leave it out"),
        ({"sbatch": {"clusters": "other"}}, "'clusters' has a key of its own in a pool: 'clusters'"),
        ({"clusters": "a,b"}, "give the name of one cluster; each has pools of its own"),
        ({"sbatch": {"-p": "gpu"}}, "'-p' is no long option of sbatch, such as 'gpus-per-node'"),
        ({"sbatch": {"comment": "a\n#SBATCH --hold"}}, "'comment' must be one line"),
        ({"time_limit_min": "a day"}, "give minutes, 'hours:minutes:seconds' or"),
        ({"time_limit_min": "infinite"}, "give minutes, 'hours:minutes:seconds' or"),
        ({"time_limit_min": "0:00:10"}, "greater than or equal to 1"),
    ],
)
def test_what_sbatch_must_not_be_told_is_refused(keys: dict[str, Any], words: str) -> None:
    """In one sentence, with what to write instead."""
    with pytest.raises(ValidationError, match=words.replace("'", ".")):
        pool(**keys)
