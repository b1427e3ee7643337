"""Plans and valid results with chosen best values, for all tests that read results.

Numbers not chosen are the thesis's where it has them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from analysis.load import read_result
from analysis.study import Study
from analysis.tables import write_tables
from trainer.data.catalog import DATASETS
from trainer.records.attempt import Attempt
from trainer.records.files import to_json
from trainer.records.plan import PlannedRun
from trainer.records.recipe import Recipe
from trainer.records.result import METRICS, Best, DataRecord, Environment, Hardware, History, Metric, Result, Timing
from trainer.records.run import Run, RunFolder

RATIOS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.4, 0.6, 0.8, 1.0)
SEEDS = (42, 43, 44)
PAIRS = (("resnet18", "cifar10"), ("vit", "cifar10"), ("resnet18", "tinyimagenet"), ("vit", "tinyimagenet"))
PARAMETERS = {
    ("resnet18", "cifar10"): 11_181_642,
    ("vit", "cifar10"): 3_195_146,
    ("resnet18", "tinyimagenet"): 11_279_112,
    ("vit", "tinyimagenet"): 3_280_840,
}
SILVER = "Intel(R) Xeon(R) Silver 4214 CPU @ 2.20GHz"
HARDWARE = {
    42: Hardware(
        host="v100-1",
        cpu=SILVER,
        gpus=["Tesla V100-PCIE-16GB"] * 4,
        pool="v100-16gb",
        device="cuda",
        precision="fp32",
    ),
    43: Hardware(
        host="p100-1",
        cpu="Intel(R) Xeon(R) CPU E5-2640 v4 @ 2.40GHz",
        gpus=["Tesla P100-PCIE-12GB"] * 4,
        pool="p100",
        device="cuda",
        precision="fp32",
    ),
    44: Hardware(
        host="v100-9",
        cpu=SILVER,
        gpus=["Tesla V100-PCIE-32GB"] * 4,
        pool="v100-32gb",
        device="cuda",
        precision="fp32",
    ),
}
STARTED = datetime(2025, 1, 1, tzinfo=timezone.utc)
BEST: dict[Metric, tuple[float, int]] = {
    "train_loss": (0.11, 3),
    "train_accuracy": (0.96, 2),
    "val_loss": (0.66, 1),
    "val_accuracy": (0.81, 2),
}


def planned_run(
    architecture: str = "resnet18",
    dataset: str = "cifar10",
    ratio: float = 0.02,
    seed: int = 42,
    *,
    variant: str = "",
    training: Recipe | None = None,
    train_samples: int | None = None,
) -> PlannedRun:
    """Create a planned run; train_samples: by default the ratio's share of the official split."""
    recipe = training or Recipe()
    if train_samples is None:
        available = DATASETS[dataset].train_samples if dataset in DATASETS else 1_000
        train_samples = math.floor(available * ratio)
    identity = f"{architecture}-{dataset}-r{ratio}-s{seed}" + (f"-{variant}" if variant else "")
    return PlannedRun(
        run=Run(id=identity, architecture=architecture, dataset=dataset, ratio=ratio, seed=seed),
        training=recipe,
        variant=variant,
        training_hash=recipe.hash,
        pool=HARDWARE[seed].pool if seed in HARDWARE else "local",
        train_samples=train_samples,
    )


def planned_grid(
    pairs: Sequence[tuple[str, str]] = PAIRS,
    ratios: Sequence[float] = RATIOS,
    seeds: Sequence[int] = SEEDS,
    *,
    variant: str = "",
    training: Recipe | None = None,
) -> list[PlannedRun]:
    """Create the planned runs of a grid, in plan order; by default the thesis's 156."""
    return [
        planned_run(architecture, dataset, ratio, seed, variant=variant, training=training)
        for architecture, dataset in pairs
        for ratio in ratios
        for seed in seeds
    ]


def make_result(
    planned: PlannedRun,
    best: Mapping[Metric, tuple[float, int]] = BEST,
    *,
    hardware: Hardware | None = None,
    parameters: int | None = None,
    train_samples: int | None = None,
    attempts: int = 1,
) -> Result:
    """Create a result with these best values: metric to (value, epoch), by default those of BEST."""
    training = planned.training
    chosen = {**BEST, **best}
    curves = {metric: _curve(metric, *chosen[metric], epochs=training.epochs) for metric in METRICS}
    history = History(
        **curves,
        learning_rate=[training.learning_rate_at(epoch) for epoch in range(training.epochs)],
        epoch_seconds=[1.5] * training.epochs,
    )
    run, dataset = planned.run, DATASETS.get(planned.run.dataset)
    used = hardware or HARDWARE.get(run.seed, HARDWARE[42])
    return Result(
        run=run,
        training=training,
        training_hash=training.hash,
        data=DataRecord(
            fingerprint="0" * 64,
            train_samples=planned.train_samples if train_samples is None else train_samples,
            val_samples=dataset.val_samples if dataset else 100,
            classes=dataset.classes if dataset else 2,
        ),
        parameters=PARAMETERS.get((run.architecture, run.dataset), 1_234) if parameters is None else parameters,
        history=history,
        best=Best.of(history),
        timing=Timing(
            train_seconds=training.epochs * 1.0, evaluation_seconds=training.epochs * 0.5, total_seconds=300.0
        ),
        hardware=used,
        environment=Environment(
            python="3.11.7",
            torch="2.7.1",
            torchvision="0.22.1",
            cuda="12.6" if used.gpus else None,
            git_commit="0123abc",
            git_dirty=False,
            slurm_job_id="17",
        ),
        attempts=[_attempt(number, attempts, training.epochs, used.host) for number in range(1, attempts + 1)],
    )


def write_result(folder: Path, result: Result) -> Path:
    """Write a result into the sweep's folder, <output>/<sweep>; without fsync, which matters only in a power cut."""
    path = RunFolder(folder / "runs" / result.run.id).result
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_json(result))
    return path


def write_grid(folder: Path, planned: Iterable[PlannedRun], *but: str) -> None:
    """Write a result of each planned run into the sweep's folder; but: run ids without one."""
    for run in planned:
        if run.run.id not in but:
            write_result(folder, make_result(run))


def write_planned(folder: Path, planned: Sequence[PlannedRun], missing: Mapping[str, str]) -> list[Path]:
    """Write a plan's tables from the results in the sweep's folder."""
    return write_tables(folder, read_study(folder, planned, missing))


def _curve(metric: Metric, value: float, epoch: int, *, epochs: int) -> list[float]:
    """Create a curve whose best value is at this epoch only."""
    if not 0 <= epoch < epochs:
        raise ValueError(f"{metric}: epoch {epoch} of {epochs}")
    elsewhere = value - 0.02 if metric.endswith("accuracy") else value + 1.0
    return [value if position == epoch else elsewhere for position in range(epochs)]


def _attempt(number: int, attempts: int, epochs: int, host: str) -> Attempt:
    """Create one of several attempts that share the epochs evenly; all but the last were interrupted."""
    last = number == attempts
    return Attempt(
        number=number,
        started=STARTED + timedelta(hours=number),
        ended=STARTED + timedelta(hours=number, minutes=5),
        start_epoch=epochs * (number - 1) // attempts,
        end_epoch=epochs * number // attempts,
        host=host,
        job=str(16 + number),
        outcome="done" if last else "interrupted",
    )


def read_study(folder: Path, planned: Sequence[PlannedRun], missing: Mapping[str, str]) -> Study:
    """Read the results of a plan's runs from <output>/<sweep>.

    missing: by run id, why its result, if any, does not count; runs without a readable result are added.
    """
    results: dict[str, Result] = {}
    reasons: dict[str, str] = {}
    for run in planned:
        identity = run.run.id
        if identity in missing:
            reasons[identity] = missing[identity]
            continue
        result, problem = read_result(RunFolder(folder / "runs" / identity), run.run)
        if result is not None:
            results[identity] = result
        else:
            reasons[identity] = problem or "no result.json"
    return Study(folder.name, planned, results, reasons)
