"""The doctor asks a real Slurm whether it takes the jobs of each pool, before any is sent."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_fixtures import POOLS, slurm_file

from slurm.private_cluster.cluster import PrivateCluster
from sweep.config.load import load_sweep
from sweep.doctor.examine import examine


def test_a_pool_that_slurm_refuses_is_found_by_the_doctor(
    make_cluster: Callable[[], PrivateCluster], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account, a qos or an option that is not there, more memory than a node has: each with the key to change.

    Nothing is submitted, and no folder is left.
    """
    cluster = make_cluster()
    cluster.start(extra=["AccountingStorageEnforce=associations,limits,qos"])
    good = POOLS["cpu"]
    pools = {
        "good": good,
        "account": {**good, "account": "nobodys"},
        "qos": {**good, "qos": "royal"},
        "memory": {**good, "memory_gb": 900},
        "option": {**good, "sbatch": {"floob": 1}},
    }
    rules = [{"when": {"seed": seed}, "pool": name} for seed, name in enumerate(pools)]
    file = slurm_file(tmp_path, data, seeds=range(5), pools=pools, assign=rules)
    for variable, value in cluster.environment.items():
        monkeypatch.setenv(variable, value)
    sweep = load_sweep(file)
    assert sweep.cluster
    checks = examine(sweep, sweep.cluster.pools, probe=False)
    found = {check.name: check for check in itertools.takewhile(lambda check: check.name != "output", checks)}
    checks.close()  # type: ignore[attr-defined]
    refused = {
        "account": ("Invalid account or account/partition combination specified", "'account' or 'partition'"),
        "qos": ("Invalid qos specification", "'qos'"),
        "memory": ("Requested node configuration is not available", "'gres', 'constraint', 'cpus', 'memory_gb'"),
        "option": ("unrecognized option '--floob=1'", "'floob' of 'sbatch'"),
    }
    for name, (said, keys) in refused.items():
        check = found[f"sbatch {name}"]
        assert (check.state, check.words) == ("problem", f"Slurm refuses its jobs: {said}")
        assert check.remedy == f"edit {keys} of pool '{name}' in {sweep.cluster.file}"
    assert found["sbatch good"].words == "Slurm takes its jobs; one that is sent now could start at once"
    assert not cluster.run("squeue", "-h").strip()
    assert not (tmp_path / "runs").exists()
