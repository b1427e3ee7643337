"""The cost model learns from what runs took: how near it comes, what it leaves out, who goes by it."""

import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import REPOSITORY, Command
from result_fixtures import RATIOS, STARTED, make_result, planned_run, write_result

from benchmarks.records import Measurement, Results, Shape
from benchmarks.summary import learned_errors, operations_errors
from slurm.bundles import LEAST_LIMIT_MIN
from slurm.jobs import Submission
from slurm.limits import ClusterLimits
from slurm.pools import Pool
from sweep.cli.tables import plan_line, rests_on, time_left
from sweep.config.load import load_sweep
from sweep.config.operations import device_kind, estimate_s
from sweep.config.schema import Cluster, ClusterSection, PlacedRun, Sweep
from sweep.plan.cost import MARGIN, MARGIN_OF_FEW, CostModel, Timed
from sweep.plan.record import planned_run as planned_of
from sweep.plan.rows import PlanRow, make_plan
from sweep.plan.timings import learn, timings
from sweep.status.folder import SweepFolder
from sweep.status.look import look
from sweep.status.state import State
from sweep.submit.arrays import plan_arrays
from sweep.submit.remedies import Change
from trainer.data.catalog import DATASETS
from trainer.models.catalog import ARCHITECTURES
from trainer.records.attempt import Attempt, AttemptRecord
from trainer.records.base import now
from trainer.records.files import read_json, write_json
from trainer.records.plan import PlannedRun
from trainer.records.process import Process
from trainer.records.recipe import Recipe
from trainer.records.result import Hardware, History, Result, Stretch, Timing
from trainer.records.run import Commitment, RunFolder, RunSpec
from trainer.records.status import Progress

THESIS = REPOSITORY / "configs" / "thesis.yaml"
V100 = Hardware(host="v1", cpu="c", gpus=["Tesla V100-PCIE-16GB"], pool="v100-16gb", device="cuda", precision="fp32")
START_S, EPOCH_S, VALIDATION_S = 11.0, 0.02, 4e-5


def law_s(work: PlacedRun) -> tuple[float, float, float]:
    """Return (seconds an image trained, validated, of a start) of a made device: short epochs are a little slower."""
    macs = ARCHITECTURES[work.spec.run.architecture].forward_macs(work.image_size)
    overhead = EPOCH_S / work.train_samples
    return overhead + 3.1 * 2 * macs / 5e12, VALIDATION_S * macs / 37e6, START_S


def took_s(work: PlacedRun) -> float:
    """Return the seconds of a run by the law."""
    train_s, val_s, start_s = law_s(work)
    return start_s + work.spec.training.epochs * (work.train_samples * train_s + work.val_samples * val_s)


def works(
    architecture: str = "resnet18", dataset: str = "cifar10", *, pool: str = "v100-16gb", device: str = "v100"
) -> list[PlacedRun]:
    """Make the study's ratios of one network on one dataset."""
    official = DATASETS[dataset]
    made = []
    for ratio in RATIOS:
        planned = planned_run(architecture, dataset, ratio)
        spec = RunSpec(run=planned.run, training=planned.training)
        size = official.image_size
        made.append(PlacedRun(spec, pool, device, size, planned.train_samples, official.val_samples))
    return made


def timed(work: PlacedRun, *, slower: float = 1.0, finished: bool = True) -> Timed:
    """Make what is known of a run that went by the law."""
    train_s, val_s, start_s = (slower * value for value in law_s(work))
    kind = work.device if work.device != "cpu" else None
    precisions = frozenset(("fp32",))
    return Timed(
        work.spec, work.pool, kind, precisions, work.image_size, work.train_samples, train_s, val_s, start_s, finished
    )


@pytest.mark.parametrize("dataset", ["cifar10", "tinyimagenet"])
@pytest.mark.parametrize("architecture", ["resnet18", "vit"])
def test_each_ratio_is_foretold_by_the_others(architecture: str, dataset: str) -> None:
    """Leave one out: within 15 %, also at both ends, with noise of 5 % and one run three times too slow."""
    noise = random.Random(7)
    all_ = works(architecture, dataset)
    known = [timed(one, slower=3.0 if number == 6 else noise.gauss(1, 0.05)) for number, one in enumerate(all_)]
    for number, one in enumerate(all_):
        estimate = CostModel([*known[:number], *known[number + 1 :]]).estimate(one)
        assert estimate.seconds == pytest.approx(took_s(one), rel=0.15), one.spec.run.id
        assert estimate.basis == "12 finished runs"


def test_recorded_epochs_are_foretold_by_those_of_other_numbers_of_images() -> None:
    """Not made ones: the benchmark's on two cores. Each within a tenth, where operations alone are half off."""
    recorded = read_json(REPOSITORY / "benchmarks" / "results" / "intel-xeon-processor-2-cores.json", Results)
    assert recorded is not None
    alone: dict[str, dict[int, Measurement]] = {}
    for sample in recorded.growth:
        if len(sample.measurements) == 1:
            alone.setdefault(sample.shape.architecture, {})[sample.images] = sample.measurements[0]
    assert {architecture: sorted(found) for architecture, found in alone.items()} == {
        "resnet18": [512, 1024, 2048, 4096],
        "vit": [512, 1024],
    }
    for architecture, found in alone.items():
        shape = Shape(architecture=architecture, dataset="cifar10")
        learned = learned_errors(shape, found)
        assert learned is not None
        assert -10 < learned.least <= learned.greatest < 10
        by_operations = operations_errors(shape, found.values(), "cpu", recorded.machine.cores)
        assert by_operations.least > 50


def test_the_nearest_evidence_there_is_counts() -> None:
    """The run itself, its like here, its like on such GPUs, other images, another network; at last the arithmetic."""
    (wanted,) = works()[5:6]
    alike, other_size, other_network = works()[4], works(dataset="tinyimagenet")[4], works("vit")[4]
    ladder = [
        ("its own time", wanted),
        ("1 finished run", alike),
        ("1 finished run in other pools", alike._replace(pool="v100-32gb")),
        ("1 finished run at another image size", other_size),
        ("1 finished run at another image size in other pools", other_size._replace(pool="v100-32gb")),
        ("1 finished run of another architecture", other_network),
        ("1 finished run of another architecture in other pools", other_network._replace(pool="v100-32gb")),
    ]
    known = [timed(one, slower=10**number) for number, (_, one) in enumerate(ladder)]
    for rung, (words, _) in enumerate(ladder):
        estimate = CostModel(known[rung:][::-1]).estimate(wanted)
        assert estimate.basis == words
        assert estimate.seconds == pytest.approx(10**rung * took_s(wanted), rel=0.25)
        assert (estimate.margin is None) == (rung > 2)
    by_operations = estimate_s(wanted)
    for useless in (
        [],
        [timed(alike._replace(pool="p100", device="p100"))],
        [timed(alike)._replace(precisions=frozenset(("fp16", "auto")))],
    ):
        estimate = CostModel(useless).estimate(wanted)
        assert (estimate.seconds, estimate.basis, estimate.learned) == (by_operations, "operations", False)


def test_processors_are_told_apart_by_their_pool() -> None:
    """No two are alike, so one in another pool says nothing; nor does a GPU the table has not."""
    here = works(pool="local", device="cpu")
    assert CostModel([timed(here[0])]).estimate(here[1]).basis == "1 finished run"
    assert CostModel([timed(here[0]._replace(pool="other"))]).estimate(here[1]).basis == "operations"
    assert (device_kind("NVIDIA A100-SXM4-40GB"), device_kind("NVIDIA L40S"), device_kind(None)) == (
        "a100",
        None,
        "cpu",
    )


def test_few_runs_leave_a_wider_margin_and_finished_ones_come_before_those_in_work() -> None:
    """One run may have had a bad day; epochs of a run in work are better than nothing."""
    known = [timed(one) for one in works()]
    wanted = works()[-1]
    assert CostModel(known[:1]).estimate(wanted).margin == MARGIN_OF_FEW > MARGIN
    assert CostModel(known[:3]).estimate(wanted).margin == MARGIN
    in_work = [timed(one, slower=9, finished=False) for one in works()[1:4]]
    estimate = CostModel(in_work).estimate(wanted)
    assert (estimate.basis, estimate.margin, estimate.learned) == ("3 runs in work", MARGIN_OF_FEW, True)
    assert CostModel([*in_work, known[0]]).estimate(wanted).basis == "1 finished run"


def test_an_estimate_does_not_depend_on_the_order_of_what_is_known() -> None:
    """Same runs, same plan."""
    known = [timed(one, slower=1 + number / 10) for number, one in enumerate(works())]
    wanted = works()[3]._replace(spec=works("vit")[3].spec)
    shuffled = random.Random(3).sample(known, len(known))
    assert CostModel(known).estimate(wanted) == CostModel(shuffled).estimate(wanted)


# On disk


def ran(planned: PlannedRun, hardware: Hardware, *, slower: float = 1.0, attempts: Sequence[Attempt] = ()) -> Result:
    """Make the result of a run that went by the law."""
    made = make_result(planned, hardware=hardware)
    official = DATASETS[planned.run.dataset]
    spec = RunSpec(run=planned.run, training=planned.training)
    one = PlacedRun(spec, "", "v100", official.image_size, planned.train_samples, official.val_samples)
    train_s, val_s, start_s = (slower * value for value in law_s(one))
    training = planned.training.epochs * planned.train_samples * train_s
    validation = planned.training.epochs * official.val_samples * val_s
    timing = Timing(
        train_seconds=training, evaluation_seconds=validation, total_seconds=start_s + training + validation
    )
    alone = attempt(f"{planned.run.id}", hardware.host, 0, timing.total_seconds)
    return made.model_copy(update={"timing": timing, "attempts": list(attempts) or [alone]})


def attempt(job: str, host: str, began_s: float, ended_s: float, number: int = 1) -> Attempt:
    return Attempt(
        number=number,
        started=STARTED + timedelta(seconds=began_s),
        ended=STARTED + timedelta(seconds=ended_s),
        host=host,
        job=job,
        outcome="done",
    )


def thesis(folder: Path) -> Sweep:
    return load_sweep(THESIS, output=folder)


def plan(sweep: Sweep) -> list[PlanRow]:
    seen = look(sweep)
    return make_plan(sweep, seen.statuses, learn(sweep, seen))


def of(rows: Sequence[PlanRow], architecture: str, dataset: str, seed: int) -> list[PlanRow]:
    return [
        row for row in rows if (row.run.architecture, row.run.dataset, row.run.seed) == (architecture, dataset, seed)
    ]


def test_results_on_disk_make_the_plan(tmp_path: Path) -> None:
    """Four runs of ResNet-18 on CIFAR-10: done ones have their own time, everything on V100s follows, P100s do not."""
    sweep = thesis(tmp_path)
    for planned in [planned_of(placed) for placed in sweep.runs]:
        run = planned.run
        if (run.architecture, run.dataset, run.seed) == ("resnet18", "cifar10", 42) and run.ratio in RATIOS[:4]:
            write_result(sweep.folder, ran(planned, V100))
    rows = plan(sweep)
    mine = of(rows, "resnet18", "cifar10", 42)
    assert {row.status.state for row in mine[:4]} == {State.DONE}
    assert [row.basis for row in mine] == ["its own time"] * 4 + ["4 finished runs"] * 9
    for row in mine:
        assert row.estimate_s == pytest.approx(took_s(row.placed), rel=0.01 if row in mine[:4] else 0.4)
    assert {row.basis for row in of(rows, "resnet18", "cifar10", 44)} == {"4 finished runs in other pools"}
    assert {row.basis for row in of(rows, "resnet18", "tinyimagenet", 42)} == {"4 finished runs at another image size"}
    assert {row.basis for row in of(rows, "vit", "cifar10", 42)} == {"4 finished runs of another architecture"}
    assert {row.basis for row in of(rows, "resnet18", "cifar10", 43)} == {"operations"}


MOVED = V100.model_copy(
    update={
        "stretches": [
            Stretch(epoch=0, device="Tesla P100", precision="fp32", threads=4, torch="2.7.1"),
            Stretch(epoch=90, device="Tesla V100", precision="fp32", threads=4, torch="2.7.1"),
        ]
    }
)


@pytest.mark.parametrize(
    ("hardware", "attempts"),
    [
        (MOVED, []),
        (V100, [attempt("7", "v1", 0, 60), attempt("7", "p1", 90, 120, number=2)]),
    ],
    ids=["stretches", "hosts"],
)
def test_a_run_that_moved_says_nothing_of_either_device(
    hardware: Hardware, attempts: list[Attempt], tmp_path: Path
) -> None:
    """Its seconds are of two devices; the run beside it that stayed is all there is to go by."""
    sweep = thesis(tmp_path)
    moved, stayed, *_ = (planned_of(placed) for placed in sweep.runs if placed.spec.run.seed == 42)
    write_result(sweep.folder, ran(moved, hardware, slower=20, attempts=attempts))
    assert timings(sweep, look(sweep)) == []
    write_result(sweep.folder, ran(stayed, V100))
    first = of(plan(sweep), "resnet18", "cifar10", 42)[0]
    assert (first.status.state, first.basis) == (State.DONE, "1 finished run")
    assert first.estimate_s == pytest.approx(took_s(first.placed), rel=0.4)


@pytest.mark.parametrize("part", ["data", "timing"])
def test_a_result_without_images_or_time_is_no_evidence(part: str, tmp_path: Path) -> None:
    """A made file must not end a look at the others."""
    sweep = thesis(tmp_path)
    result = ran(planned_of(sweep.runs[0]), V100)
    nothing = {"data": {"val_samples": 0}, "timing": {"train_seconds": 0.0}}[part]
    write_result(sweep.folder, result.model_copy(update={part: getattr(result, part).model_copy(update=nothing)}))
    assert {row.basis for row in plan(sweep)} == {"operations"}


def test_interruptions_do_not_count(tmp_path: Path) -> None:
    """A run in two pieces on one host keeps its rates; the time between and what was lost are no start."""
    sweep = thesis(tmp_path)
    planned = planned_of(sweep.runs[0])
    pieces = [attempt("7", "v1", 0, 60), attempt("7", "v1", 5000, 9000, number=2)]
    result = ran(planned, V100, attempts=pieces)
    late = result.timing.model_copy(update={"total_seconds": 4060.0})
    write_result(sweep.folder, result.model_copy(update={"timing": late}))
    first = plan(sweep)[0]
    assert first.estimate_s == pytest.approx(took_s(first.placed) - START_S + 3.0)


def test_runs_that_share_a_gpu_count_their_part_of_it(tmp_path: Path) -> None:
    """Two at once, each twice as long as alone: together they keep the GPU busy as long as one after the other."""
    sweep = thesis(tmp_path)
    chosen = [planned_of(placed) for placed in sweep.runs if placed.spec.run.seed == 42][:3]
    lengths = [took_s(placed) for placed in sweep.runs if placed.spec.run.seed == 42][:3]
    for planned in chosen[:2]:
        both = [attempt("7_0", "v1", 0, 2 * lengths[0])]
        write_result(sweep.folder, ran(planned, V100, slower=2, attempts=both))
    write_result(sweep.folder, ran(chosen[2], V100, attempts=[attempt("7_0", "v1", 2 * lengths[0], 9e5)]))
    rows = of(plan(sweep), "resnet18", "cifar10", 42)[:3]
    assert [row.estimate_s for row in rows] == pytest.approx(lengths)


def test_a_run_in_work_is_evidence_early(tmp_path: Path) -> None:
    """After three epochs the first no longer counts, and all like it are estimated by the others."""
    file = tmp_path / "s.yaml"
    file.write_text("name: s\ngrid: {architecture: [resnet18], dataset: [cifar10], ratio: [0.1, 0.2], seed: [1]}\n")
    sweep = load_sweep(file, output=tmp_path)
    spec = sweep.runs[0].spec
    folder = RunFolder(sweep.folder / "runs" / spec.run.id)
    folder.attempts.mkdir(parents=True)
    (sweep.folder / "submissions").mkdir()
    process = Process(host="elsewhere", pid=1, started=1.0)
    first = "word-0001"
    record = AttemptRecord(
        number=1, started=STARTED, host="h", job="j", run_id=spec.run.id, submission=first, process=process, log="l"
    )
    write_json(folder.attempt(1), record)
    write_json(folder.commitment, Commitment(run=spec.run, training=spec.training, data_fingerprint=""))
    intent = Submission(token=first, created=now(), executor="local", runs=[spec.run.id])
    write_json(SweepFolder(sweep.folder).submission(first), intent)

    def progress(*epoch_seconds: float) -> None:
        count = len(epoch_seconds)
        curves = {name: [0.5] * count for name in History.model_fields} | {"epoch_seconds": list(epoch_seconds)}
        whole = Progress(
            run_id=spec.run.id,
            attempt=1,
            job="j",
            host="h",
            epoch=count,
            epochs=180,
            step=0,
            steps=10,
            started=STARTED,
            heartbeat=now(),
            start_epoch=0,
            history=History(**curves),
        )
        write_json(folder.progress, whole)

    progress(50.0)
    assert {row.basis for row in plan(sweep)} == {"operations"}
    progress(50.0, 2.0, 2.0)
    own, other = plan(sweep)
    assert (own.basis, other.basis) == ("its own epochs", "1 run in work")
    assert own.estimate_s == pytest.approx(3 + 180 * 2)
    assert other.estimate_s == pytest.approx(3 + 180 * 2 * (3 * 10_000 + 10_000) / (3 * 5_000 + 10_000))
    assert "1 in work at a time" in time_left(plan(sweep))[0]


POOL = Pool(device="v100", partition="gpu", gres="gpu:v100:1", time_limit_min=1440)


def arrays(
    tmp_path: Path, slower: float | None, changes: dict[str, Change], pool: Pool = POOL
) -> tuple[list[int], list[int | None]]:
    """Plan the jobs of ResNet-18 on CIFAR-10 in one pool; give the sizes of the jobs and the limits in minutes."""
    sweep = thesis(tmp_path)
    cluster = Cluster(Path("c.yaml"), {"v100-16gb": pool}, ClusterSection(file="c", assign=[]))
    if slower is not None:
        for placed in sweep.runs:
            if placed.id in ("resnet18-cifar10-r0.1-s42", "resnet18-cifar10-r0.2-s42"):
                write_result(sweep.folder, ran(planned_of(placed), V100, slower=slower))
    rows = [row for row in of(plan(sweep), "resnet18", "cifar10", 42) if row.status.state is State.PLANNED]
    limits = ClusterLimits(max_array_size=1001, max_jobs=1000, message_timeout_s=10, partitions={})
    made = plan_arrays(sweep, cluster, rows, limits, changes)
    return [len(task) for array in made for task in array.tasks], [array.resources.time_limit_min for array in made]


def test_jobs_and_their_limits_follow_what_runs_took(tmp_path: Path) -> None:
    """Slower runs are bundled fewer a job; limits shrink to what is measured, stay above a floor, below the pool's."""
    by_operations, limit = arrays(tmp_path / "none", None, {})
    assert limit == [POOL.time_limit_min]
    slow, limit = arrays(tmp_path / "slow", 8, {})
    assert len(slow) > len(by_operations)
    longest_s = max(took_s(one) for one in works()) * 8
    assert limit[0] == pytest.approx(MARGIN_OF_FEW * longest_s / 60, rel=0.2)
    _, limit = arrays(tmp_path / "quick", 0.01, {})
    assert limit == [LEAST_LIMIT_MIN]
    _, limit = arrays(tmp_path / "slowest", 100, {})
    assert limit == [POOL.time_limit_min]


def test_a_pool_that_leaves_the_time_to_the_site_asks_for_none(tmp_path: Path) -> None:
    """However well the time is known."""
    free = POOL.model_copy(update={"time_limit_min": None})
    assert arrays(tmp_path / "known", 0.01, {}, free)[1] == arrays(tmp_path / "unknown", None, {}, free)[1] == [None]


def test_a_retry_that_gives_more_time_gets_it(tmp_path: Path) -> None:
    """What was measured does not take back what a timeout taught."""
    _, limits = arrays(tmp_path, 0.01, {"resnet18-cifar10-r0.4-s42": Change(time_limit_min=2880)})
    assert sorted(limits) == [LEAST_LIMIT_MIN, 2880]
    _, limits = arrays(tmp_path, 0.01, {"resnet18-cifar10-r0.4-s42": Change(time_limit_min=1440)})
    assert limits == [1440]


def test_the_plan_says_what_its_hours_rest_on(sweep: Command, tmp_path: Path) -> None:
    """In the document, in every plain line, and in a line below the tables."""
    study = thesis(tmp_path / "runs")
    placed = study.runs[0]
    write_result(study.folder, ran(planned_of(placed), V100))
    runs = sweep.json("plan", THESIS)["runs"]
    assert runs[0]["basis"] == "its own time"
    assert runs[0]["estimate_s"] == pytest.approx(took_s(placed), abs=0.1)
    lines = sweep("plan", THESIS).stdout.splitlines()
    assert [line.split("\t")[-1] for line in lines] == [run["basis"] for run in runs]
    rows = plan(study)
    assert [plan_line(row) for row in rows] == lines
    assert rests_on(rows[:1]) == "by its own time"
    assert rests_on(rows[:3]) == "1 by its own time, 1 by operations, 1 by 1 finished run in other pools"
    assert rests_on(rows).startswith("52 by operations, ")
    assert rests_on(rows).endswith(" otherwise")


def test_what_is_left_is_said_with_what_it_rests_on(tmp_path: Path) -> None:
    """No run, no line; otherwise the device's time and where that comes from."""
    rows = plan(thesis(tmp_path))
    (line,) = time_left(rows)
    assert line.startswith("156 runs left, about ")
    assert line.endswith(" of one device's time; estimated by operations")
    done = [row._replace(status=row.status._replace(state=State.DONE)) for row in rows]
    assert time_left(done) == []
    one, other = (row._replace(status=row.status._replace(state=State.RUNNING)) for row in rows[:2])
    long, short = one._replace(estimate_s=36_000.0), other._replace(estimate_s=3600.0)
    assert "about 11.0 h of one device's time: about 10.0 h with 2 in work" in time_left([long, short])[0]


def test_precision_auto_is_known_by_what_was_asked_and_what_was_used(tmp_path: Path) -> None:
    """A run that asked for auto and used fp16 speaks for both, and not for fp32."""
    sweep = thesis(tmp_path)
    planned = planned_of(sweep.runs[0])
    auto = planned.training.model_copy(update={"precision": "auto"})
    result = ran(planned.model_copy(update={"training": auto, "training_hash": auto.hash}), V100)
    write_result(sweep.folder, result.model_copy(update={"hardware": V100.model_copy(update={"precision": "fp16"})}))
    (known,) = timings(sweep, look(sweep))
    wanted = sweep.runs[3]

    def basis(precision: str) -> str:
        recipe = Recipe.model_validate({"precision": precision})
        return CostModel([known]).estimate(wanted._replace(spec=RunSpec(run=wanted.spec.run, training=recipe))).basis

    assert [basis(one) for one in ("auto", "fp16", "fp32")] == ["1 finished run", "1 finished run", "operations"]
    first = plan(sweep)[0]
    assert (first.status.state, first.basis) == (State.STALE, "operations")
