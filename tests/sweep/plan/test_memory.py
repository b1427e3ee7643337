"""What a run needs of a GPU's memory is known before it is sent to one."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Command
from result_fixtures import make_result, write_result
from rich.console import Console

from slurm.limits import ClusterLimits
from slurm.pools import LEAST_GPU_GIB, Pool
from sweep.cli.tables import plan_tables
from sweep.config.load import load_sweep
from sweep.config.schema import PlacedRun, Sweep
from sweep.errors import InputError
from sweep.plan.cost import CostModel
from sweep.plan.memory import Need, needs, run_gib
from sweep.plan.record import planned_run
from sweep.plan.rows import make_plan
from sweep.status.state import RunStatus, State
from sweep.submit import target
from sweep.submit.remedies import Change
from sweep.submit.target import OnSlurm
from trainer.records.recipe import Recipe
from trainer.records.run import Run, RunSpec

POOL = Pool(device="v100", partition="gpu")
IMAGES = {32: 50_000, 64: 100_000}
# GiB, counted from the tensors that live together at the peak: four replicas of 128, evaluation batches of 2,500.
COUNTED = {
    ("resnet18", 32): {"fp32": 0.9, "fp16": 0.7, "bf16": 0.7},
    ("resnet18", 64): {"fp32": 3.7, "fp16": 2.7, "bf16": 2.7},
    ("vit", 32): {"fp32": 4.2, "fp16": 3.0, "bf16": 3.0},
    ("vit", 64): {"fp32": 5.6, "fp16": 4.3, "bf16": 4.3},
}


TOO_MANY = "{} runs on a GPU need up to about {:.1f} GiB of it (r), and it has {} GiB; set 'cluster.runs_per_gpu: {}'"
NEAR = (
    "r and its like need about {} GiB of {} GiB; they may just not fit; lower 'batch_size' or 'runs_per_gpu' if runs "
    "fail of it"
)


def placed(architecture: str, size: int, *, ratio: float = 1.0, **recipe: Any) -> PlacedRun:
    run = Run(id=f"{architecture}-{size}", architecture=architecture, dataset="cifar10", ratio=ratio, seed=1)
    return PlacedRun(
        RunSpec(run=run, training=Recipe(**recipe)), "gpu", "v100", size, int(ratio * IMAGES[size]), 10_000
    )


@pytest.mark.parametrize(("network", "size"), COUNTED)
def test_a_run_needs_what_was_counted(network: str, size: int) -> None:
    """Within 15 %, in every number format."""
    for precision, gib in COUNTED[network, size].items():
        assert run_gib(placed(network, size, precision=precision), POOL) == pytest.approx(gib, rel=0.15)


def test_what_a_run_needs_follows_its_recipe_and_its_images() -> None:
    """Half the batch or the replicas is half the step; a tenth of the images leaves all of the activations."""
    whole = run_gib(placed("vit", 64), POOL)
    halved = run_gib(placed("vit", 64, batch_size=64), POOL)
    assert halved == pytest.approx(whole - 1.3, abs=0.1)
    assert run_gib(placed("vit", 64, replicas=2), POOL) == pytest.approx(halved)
    assert run_gib(placed("vit", 64), POOL, gpus=2) == pytest.approx(halved)
    assert run_gib(placed("vit", 64, ratio=0.1), POOL) == pytest.approx(whole - 0.9 * 1.14, abs=0.05)


def test_a_replica_with_few_images_needs_no_more_than_they_take() -> None:
    """A batch of 4,096 is one of 250 where a replica has so many."""
    few = placed("vit", 32, ratio=0.02, batch_size=4096)
    assert run_gib(few, POOL) == run_gib(placed("vit", 32, ratio=0.02, batch_size=250), POOL)
    assert run_gib(few, POOL) > run_gib(placed("vit", 32, ratio=0.02), POOL)


def test_auto_is_the_format_of_the_pool_s_device() -> None:
    """fp32 on a P100, which has no other that is fast."""
    auto = placed("vit", 64, precision="auto")
    assert run_gib(auto, POOL) == run_gib(placed("vit", 64, precision="fp16"), POOL)
    p100 = Pool(device="p100", partition="gpu")
    assert run_gib(auto, p100) == run_gib(placed("vit", 64, precision="fp32"), p100)


@pytest.mark.parametrize(
    ("gib", "workers", "gpu", "problem", "warning"),
    [
        (6.2, 1, 12, None, None),
        (6.2, 2, 12, TOO_MANY.format(2, 12.4, 12, 1), None),
        (6.2, 5, 24, TOO_MANY.format(5, 31.0, 24, 3), None),
        (6.2, 2, 13, None, NEAR.format(12.4, 13)),
        (6.2, 1, 6, None, NEAR.format(6.2, 6)),
        (6.2, 2, 5, "r needs about 6.2 GiB of a GPU, which has 5 GiB; send it to another pool, give it more GPUs "
         "('execution.gpus_per_run'), lower 'batch_size', or take another 'precision'", None),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_with_what_to_do(
    gib: float, workers: int, gpu: float, problem: str | None, warning: str | None
) -> None:
    """An estimate refuses no run that may just fit; nor does a guess at the GPU's memory refuse any."""
    need = Need("p", "r", (gib,) * workers, gpu)
    assert ("; ".join(need.problem) if need.problem else None) == problem
    assert ("; ".join(need.warning) if need.warning else None) == warning
    guessed = need._replace(stated=False)
    assert guessed.problem is None
    assert bool(guessed.warning) is bool(problem or warning)
    assert not problem or f"at least {gpu:g} GiB; give the pool its 'gpu_memory_gb'" in "; ".join(guessed.warning or ())


STATED: dict[str, dict[str, Any]] = {
    "p100": {"device": "p100", "partition": "gpu", "gpu_memory_gb": 12},
    "large": {"device": "v100", "partition": "gpu", "gpu_memory_gb": 32},
}


def study(
    folder: Path, *, precision: str = "fp32", grid: Mapping[str, Any] = {}, pools: Any = STATED, **section: Any
) -> Sweep:
    (folder / "cluster.yaml").write_text(json.dumps({"name": "lab", "pools": pools}))
    sweep = {
        "name": "study",
        "grid": {"architecture": ["vit"], "dataset": ["tinyimagenet"], "ratio": [1.0], "seed": [1, 2], **grid},
        "training": {"precision": precision},
        "cluster": {"file": "./cluster.yaml", "assign": [{"pool": "p100"}], **section},
        "data": str(folder / "data"),
        "output": str(folder / "runs"),
    }
    (folder / "study.yaml").write_text(json.dumps(sweep))
    return load_sweep(folder / "study.yaml")


def send(sweep: Sweep, runs: Sequence[PlacedRun], changes: Mapping[str, Change] = {}) -> Sequence[str]:
    """What a submission of these runs to a cluster would note."""
    assert sweep.cluster
    limits = ClusterLimits(1001, 10_000, 10.0, {})
    statuses = [RunStatus(one.spec.run, State.PLANNED, epochs=180) for one in runs]
    rows = make_plan(sweep._replace(runs=list(runs)), statuses, CostModel())
    return OnSlurm(sweep, sweep.cluster, limits).plan(rows, changes).notes


def test_two_large_runs_are_not_sent_to_share_a_small_gpu(tmp_path: Path) -> None:
    """Two ViTs at 64×64 pixels in fp32 on 12 GB: refused before anything is submitted."""
    alone = study(tmp_path)
    assert send(alone, alone.runs) == []
    shared = study(tmp_path, runs_per_gpu=2)
    with pytest.raises(InputError, match=r"pool 'p100': 2 runs on a GPU need up to about 12\.\d GiB.*runs_per_gpu: 1'"):
        send(shared, shared.runs)


@pytest.mark.parametrize("device", LEAST_GPU_GIB)
def test_a_pool_that_does_not_say_what_its_gpus_have_is_warned_of(tmp_path: Path, device: str) -> None:
    """By the least that GPUs of its kind have; it may have larger ones, so it is not refused what it took before."""
    runs_per_gpu = int(LEAST_GPU_GIB[device] / 6.16) + 1
    grid = {"seed": list(range(runs_per_gpu))}
    pools = {"p100": {"device": device, "partition": "gpu"}}
    (note,) = send(found := study(tmp_path, grid=grid, pools=pools, runs_per_gpu=runs_per_gpu), found.runs)
    words = f"p100: {runs_per_gpu} runs on a GPU need up to about"
    assert note.startswith(words)
    assert f"at least {LEAST_GPU_GIB[device]:g} GiB; give the pool its 'gpu_memory_gb' if that is more" in note


def test_only_runs_that_are_sent_are_judged_and_where_they_go(tmp_path: Path) -> None:
    """A run that is left, or that a retry moves to a larger GPU, does not share the small one."""
    sweep = study(tmp_path, runs_per_gpu=2)
    assert send(sweep, []) == send(sweep, sweep.runs[:1]) == []
    larger = {placed.id: Change(pool="large") for placed in sweep.runs}
    assert send(sweep, sweep.runs, larger) == []
    assert send(sweep, sweep.runs, dict(list(larger.items())[:1])) == []


def test_a_large_run_may_share_a_gpu_with_small_ones(tmp_path: Path) -> None:
    """What counts is the largest runs together, not the largest so many times."""
    mixed = study(tmp_path, runs_per_gpu=2, grid={"architecture": ["vit", "resnet18"], "seed": [1]})
    assert len(mixed.runs) == 2
    assert send(mixed, mixed.runs) == []
    (need,) = needs(mixed, mixed.runs)
    assert (need.run, len(need.gibs), need.fit) == ("vit-tinyimagenet-r1.0-s1", 2, 2)
    assert need.gibs[0] > need.gibs[1]


def test_runs_on_the_cpu_need_no_gpu(tmp_path: Path) -> None:
    sweep = study(tmp_path, runs_per_gpu=2)
    assert list(needs(sweep, sweep.runs))
    on_cpu = sweep._replace(execution=sweep.execution.model_copy(update={"device": "cpu"}))
    assert not list(needs(on_cpu, on_cpu.runs))


@pytest.mark.slow
def test_the_plan_says_what_does_not_fit_and_leaves_its_document_alone(sweep: Command, tmp_path: Path) -> None:
    """In words on stderr, as JSON and as lines; nothing of runs that are done, which did fit."""
    shared = study(tmp_path, runs_per_gpu=2)
    for arguments in ([], ["--json"]):
        found = sweep("plan", tmp_path / "study.yaml", *arguments)
        assert "pool 'p100': 2 runs on a GPU need up to about" in found.stderr
        assert "GiB" not in found.stdout
    write_result(shared.folder, make_result(planned_run(shared.runs[0])))
    assert "GiB" not in sweep("plan", tmp_path / "study.yaml").stderr


def test_the_table_of_a_plan_shows_what_its_runs_need_of_a_gpu(tmp_path: Path) -> None:
    """Of all that share one; a plan without pools has no such column."""
    one = study(tmp_path)
    statuses = [RunStatus(placed.spec.run, State.PLANNED, epochs=180) for placed in one.runs]
    rows = make_plan(one, statuses, CostModel())
    console = Console(width=200)
    with console.capture() as drawn:
        console.print(plan_tables(rows, list(needs(one, one.runs))))
    assert re.search(r"p100 .* 6\.\d of 12 GiB", drawn.get())
    with console.capture() as drawn:
        console.print(plan_tables(rows))
    assert "GPU memory" not in drawn.get()


def test_a_format_that_a_pool_s_gpu_emulates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trainers would refuse it too, one by one."""
    monkeypatch.setattr(target, "read_limits", lambda others: None)
    monkeypatch.setattr(target, "problems", lambda *pool, **shares: [])
    sweep = study(tmp_path, precision="bf16")
    assert sweep.cluster
    with pytest.raises(InputError, match=r"pool 'p100': a p100 has no bf16, and emulates it .*'precision: auto'"):
        target.read_cluster_limits(sweep, sweep.cluster)


def test_the_study_s_own_pools_hold_its_runs() -> None:
    thesis = load_sweep(REPOSITORY / "configs" / "thesis.yaml")
    found = list(needs(thesis, thesis.runs))
    assert {need.pool for need in found} == {"v100-16gb", "p100-12gb", "v100-32gb"}
    for need in found:
        assert need.problem is need.warning is None, need
