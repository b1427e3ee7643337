"""A GPU that breaks in the middle of a job: one run has failed of it, the others are done, the retry goes elsewhere."""

from pathlib import Path

from conftest import Command, read
from slurm_fixtures import slurm_file
from slurm_runs import all_ended, folder_of, wait_for_all

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
