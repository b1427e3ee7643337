"""A GPU that breaks: one run has failed of it, the others are done, and what is sent next goes elsewhere."""

import re
from pathlib import Path

from conftest import Command, read
from slurm_fixtures import slurm_file
from slurm_runs import all_ended, by_seed, folder_of, wait_for_all

from slurm.private_cluster.cluster import PrivateCluster
from trainer.records.attempt import AttemptRecord, Cause
from trainer.records.base import now
from trainer.records.files import write_json
from trainer.records.process import Process

SEEDS = (1, 2, 3, 4)
BROKEN = 2
# Seed 2 breaks the GPU of the first node it comes to: its process then has no GPU, as after a real sticky error.
STICKY = """
import os, pathlib, sys
if "trainer" in sys.orig_argv:
    import numpy
    well = numpy.load
    def load(*arguments, **named):
        from trainer.loop.trainer import Trainer
        from trainer.run import bundle
        node, file = os.environ["SLURMD_NODENAME"], pathlib.Path(__file__).with_name("node")
        whole = Trainer.run_epoch
        def broken(*arguments):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        def run_epoch(trainer, tick):
            if trainer.seed == 2 and (not file.exists() or file.read_text() == node):
                file.write_text(node)
                Trainer.run_epoch, bundle.is_broken = broken, lambda name: True
                broken()
            whole(trainer, tick)
        if not hasattr(Trainer, "patched"):
            Trainer.patched, Trainer.run_epoch = True, run_epoch
        return well(*arguments, **named)
    numpy.load = load
"""


def test_a_sticky_error_costs_one_run_and_its_retry_goes_to_another_node(
    on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Four runs in one job: three are done by it, in two processes with one number; the failed one names its node."""
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / "sitecustomize.py").write_text(STICKY)
    pool = {
        "device": "cpu",
        "partition": "v100",
        "memory_gb": 2,
        "time_limit_min": 60,
        "setup": [f"export PYTHONPATH={faults}${{PYTHONPATH:+:$PYTHONPATH}}"],
    }
    file = slurm_file(tmp_path, data, seeds=SEEDS, pool="v100", pools={"v100": pool}, job_target_min=600)
    on_slurm("submit", file, "--yes")
    found = wait_for_all(on_slurm, file, all_ended, "the job to end")
    assert {seed: run["state"] for seed, run in found.items()} == {1: "done", 2: "failed", 3: "done", 4: "done"}
    node = (faults / "node").read_text()
    failed = found[BROKEN]
    assert (failed["cause"], failed["node"], failed["epoch"]) == ("gpu_fault", node, 0)
    assert "an illegal memory access was encountered" in failed["message"]
    assert len({run["job"] for run in found.values()}) == 1
    processes = [read(folder_of(tmp_path, seed).attempt(1))["process"]["pid"] for seed in SEEDS]
    assert len(set(processes)) == 1

    said = on_slurm("retry", file, "--yes").stderr
    assert f"another node than {node}" in said
    found = wait_for_all(on_slurm, file, lambda runs: runs[BROKEN]["state"] == "done", "the retry")
    assert found[BROKEN]["node"] not in (None, node)


def test_jobs_keep_away_from_a_node_where_two_died_until_it_is_mended(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """`status` and `doctor` name it, every further job excludes it, and `retry --forget-nodes` uses it again."""
    slurm.run("scontrol", "update", "nodename=v100-[1-2]", "state=drain", "reason=test")
    file = slurm_file(tmp_path, data, seeds=(1, 2, 3), pool="v100")
    for seed in (1, 2):
        folder = folder_of(tmp_path, seed)
        folder.attempts.mkdir(parents=True)
        record = AttemptRecord(
            number=1, started=now(), ended=now(), host="v100-1", job=f"1_{seed}", outcome="failed",
            run_id=folder.path.name, submission="one", process=Process(host="v100-1", pid=1, started=1.0), log="",
            cause=Cause.GPU_FAULT, message="an illegal memory access was encountered",
        )  # fmt: skip
        write_json(folder.attempt(1), record)

    def excluded() -> list[str]:
        waiting = [line for line in slurm.run("scontrol", "-o", "show", "jobs").splitlines() if "=PENDING " in line]
        return sorted(re.findall(r" ExcNodeList=(\S+)", "".join(waiting)))

    words = "v100-1: 2 jobs in a row died there, the last of gpu_fault"
    assert words in on_slurm("submit", file, "--yes").stderr
    assert by_seed(on_slurm, file)[3]["state"] == "queued"
    assert excluded() == ["v100-1"]
    [bad] = on_slurm.json("status", file)["bad_nodes"]
    assert (bad["name"], bad["jobs"], bad["cause"]) == ("v100-1", 2, "gpu_fault")
    assert words in on_slurm("doctor", file, "--no-probe", expect=0).stdout
    assert words not in on_slurm("retry", file, "--forget-nodes", "--yes").stderr
    assert excluded() == ["(null)", "v100-1"], "the two that are tried again, one array, may go there"
    assert on_slurm.json("status", file)["bad_nodes"] == []
