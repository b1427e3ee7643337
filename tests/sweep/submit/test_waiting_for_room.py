"""Whoever waits for room on a cluster waits on while Slurm is silent, and goes by what it says next."""

import json
from pathlib import Path

import pytest

from slurm.limits import ClusterLimits
from slurm.room import Association, Room
from sweep.config.load import load_sweep
from sweep.errors import MachineError
from sweep.plan.cost import CostModel
from sweep.plan.rows import make_plan
from sweep.status.state import RunStatus, State
from sweep.submit import target
from sweep.submit.target import OnSlurm


def limits(most: int, used: int) -> ClusterLimits:
    mine = Association("lab", "me", None, None, True, most, None, used)
    return ClusterLimits(1001, 10_000, 10.0, {}, room=Room([mine]))


def test_a_silent_slurm_is_no_room_and_ends_no_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then full, then with room for two: the next plan sends two jobs, one in each pool that races."""
    pools = {name: {"device": "cpu", "partition": name} for name in ("a", "b")}
    (tmp_path / "cluster.yaml").write_text(json.dumps({"name": "c", "pools": pools}))
    grid = {"architecture": ["resnet18"], "dataset": ["cifar10"], "ratio": [1.0], "seed": [1, 2, 3]}
    section = {"file": "./cluster.yaml", "assign": [{"pool": ["a", "b"], "first": True}], "job_target_min": 0}
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps({"name": "study", "grid": grid, "cluster": section, "output": str(tmp_path)}))
    sweep = load_sweep(file)
    rows = make_plan(sweep, [RunStatus(one.spec.run, State.PLANNED, epochs=180) for one in sweep.runs], CostModel())
    answers = iter([MachineError("Slurm does not answer"), limits(5, 5), limits(5, 4), limits(5, 3)])

    def ask(*sweep_and_cluster: object) -> ClusterLimits:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(target, "read_cluster_limits", ask)
    assert sweep.cluster
    there = OnSlurm(sweep, sweep.cluster, limits(5, 5))
    assert [there.has_room(rows) for _ in range(3)] == [False, False, False], "a run that races needs two jobs"
    assert there.has_room(rows)
    planned = there.plan(rows, {})
    assert [batch.pool for batch in planned.batches] == ["a", "b"]
    assert planned.jobs == 2
    assert planned.full == ["you in account 'lab': at most 5 jobs at a time, 3 already waiting or running"]
