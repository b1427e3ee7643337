"""The benchmark's arithmetic and its report; and that it asks for Lightning in words."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY, Command

from benchmarks import summary
from benchmarks.__main__ import file_name, main
from benchmarks.cases import growth_images, peer_variants, side_by_side
from benchmarks.launch import Bench
from benchmarks.plot import picture
from benchmarks.records import GrowthSample, Machine, Measurement, Results, Sample, Shape, Side
from benchmarks.report import markdown
from benchmarks.rounds import interleave
from benchmarks.summary import Speed, Spread
from slurm.devices import CPU
from sweep.config.load import load_sweep
from trainer.records.files import write_json

RESNET = Shape(architecture="resnet18", dataset="cifar10")
VIT = Shape(architecture="vit", dataset="cifar10")
OURS = Side(program="ours", precision="fp32")
OURS_BF16 = Side(program="ours", precision="bf16")
PEER = Side(program="lightning", precision="fp32", batch=512)
STUDY = REPOSITORY / "configs" / "thesis.yaml"
RATIOS = 0.01 + 0.02 + 0.03 + 0.05 + 0.075 + 0.1 + 0.15 + 0.2 + 0.25 + 0.4 + 0.6 + 0.8 + 1


def measurement(
    train_s: float = 2.0, validation_s: float = 0.5, images: int = 1000, began: float = 100.0, precision: str = "fp32"
) -> Measurement:
    """Make what a process would answer that trains and validates so many images in so many seconds, two epochs."""
    return Measurement(
        precision=precision,
        trained=images,
        validated=images,
        startup_s=3.0,
        first_epoch_s=4.0 + train_s + validation_s,
        train_seconds=(train_s, train_s),
        validation_seconds=(validation_s, validation_s),
        began=began,
        ended=began + 2 * (train_s + validation_s),
        matrix_peak=1e12,
        memory_bytes=2**30,
        device_memory_bytes=None,
        train_loss=2.0,
        val_accuracy=0.2,
        gpu=None,
        versions={"torch": "2.7.1"},
    )


def results(*samples: Sample, growth: list[GrowthSample] | None = None, **changes: object) -> Results:
    """Make the file of a benchmark on a CPU of two cores."""
    machine = Machine(
        cpu="A CPU(R) @ 2 GHz",
        cores=2,
        memory_bytes=8 * 2**30,
        gpu=None,
        auto="bf16",
        commit="0123456789abcdef",
        dirty=False,
    )
    whole = Results(
        date="2026-01-02",
        quick=False,
        machine=machine,
        busy_cores=0.1,
        images={"resnet18": 1000},
        epochs=2,
        search=[],
        samples=list(samples),
        growth=growth or [],
    )
    return whole.model_copy(update=changes)


def three_rounds() -> list[Sample]:
    """Make rounds in which ours takes 2, 2 and 4 s an epoch, Lightning 4, 6 and 4 s."""
    samples = []
    for number, (mine, theirs) in enumerate([(2, 4), (2, 6), (4, 4)]):
        samples.append(Sample(shape=RESNET, side=OURS, round=number, measurement=measurement(mine - 0.5)))
        samples.append(Sample(shape=RESNET, side=PEER, round=number, measurement=measurement(theirs - 0.5)))
    return samples


def test_speed_is_all_images_over_the_time_of_training_and_validation() -> None:
    """2,000 images in 2 + 0.5 seconds; the first epoch does not count."""
    assert summary.images_per_second(measurement()) == 800


def test_a_ratio_is_taken_within_each_round() -> None:
    """2, 3 and 1; the ratio of the medians would be the same machine at other moments."""
    assert summary.ratios(three_rounds(), RESNET, OURS, PEER) == Spread(2.0, 1.0, 3.0, 3)
    with pytest.raises(ValueError, match="no values"):
        summary.ratios(three_rounds(), VIT, OURS, PEER)


def test_the_share_of_the_peak_counts_three_passes_of_training_and_one_of_validation() -> None:
    """ResNet-18@32: 37.0 M multiply-accumulates an image, two operations each."""
    share = summary.peak_share(RESNET, measurement())
    assert share == pytest.approx(4 * 1000 * 37.0e6 * 2 / 2.5 / 1e12)


def test_seconds_besides_epochs_are_the_first_ones_excess() -> None:
    """Imports, data, warm-up: whatever a process takes that its later epochs do not."""
    assert summary.outside_seconds(measurement()) == pytest.approx(4.0)


def test_processes_at_once_count_from_the_first_beginning_to_the_last_end() -> None:
    """Two that overlap half are not counted as if they ran together all the time."""
    found = [measurement(began=100.0), measurement(began=102.5)]
    assert summary.combined_images_per_second(found) == pytest.approx(2 * 4000 / 7.5)


def test_the_whole_sweep_is_projected_from_its_plan() -> None:
    """156 runs of 180 epochs, by hand: training images by ratio, 10,000 validated an epoch, and each run's start."""
    shapes = [Shape(architecture=a, dataset=d) for a in ("resnet18", "vit") for d in ("cifar10", "tinyimagenet")]
    hours = summary.sweep_hours(load_sweep(STUDY).runs, dict.fromkeys(shapes, Speed(1000, 10_000, 5.0)))
    train = 180 * 3 * 2 * (50_000 + 100_000) * RATIOS / 1000
    assert hours == pytest.approx((train + 156 * (180 * 10_000 / 10_000 + 5)) / 3600)


def test_a_shape_that_was_not_measured_is_projected_by_its_operations() -> None:
    """ResNet-18 on 64×64 pixels takes four times what it takes on 32×32; without the ViT there is no projection."""
    runs = [placed for placed in load_sweep(STUDY).runs if placed.spec.run.architecture == "resnet18"]
    hours = summary.sweep_hours(runs, {RESNET: Speed(1000, 10_000, 0.0)})
    train = 180 * 3 * (50_000 + 4 * 100_000) * RATIOS / 1000
    assert hours == pytest.approx((train + 39 * 180 * (1 + 4) * 10_000 / 10_000) / 3600)
    assert summary.sweep_hours(load_sweep(STUDY).runs, {RESNET: Speed(1000, 10_000, 0.0)}) is None


def test_a_straight_line_is_fitted_to_epochs() -> None:
    """Half a second an epoch and a millisecond an image come out again."""
    epochs = [measurement(0.5 + images / 1000, images=images) for images in (512, 1024, 2048)]
    assert summary.fit(epochs) == (pytest.approx(0.5), pytest.approx(0.001))
    with pytest.raises(ValueError, match="two different numbers"):
        summary.fit(epochs[:1])


def test_sides_take_turns_and_every_other_round_goes_backwards() -> None:
    """What drifts with time falls on both alike."""
    assert interleave([OURS, PEER], 3) == [(0, OURS), (0, PEER), (1, PEER), (1, OURS), (2, OURS), (2, PEER)]


def test_the_peer_may_take_the_batch_of_one_replica_or_of_all() -> None:
    """Whichever is faster counts, with and without loader processes on a CPU."""
    tried = [(side.batch, side.loader_workers) for side in peer_variants("fp32", gpu=False, cores=2)]
    assert tried == [(128, 0), (512, 0), (128, 2), (512, 2)]


def test_growth_takes_whole_steps_and_no_more_processes_than_cores() -> None:
    """A step is 512 images; a smaller number would be another batch."""
    assert growth_images(4096) == [512, 1024, 2048, 4096]
    assert growth_images(512) == [512]
    assert side_by_side(gpu=False, cores=2) == [1, 2]
    assert side_by_side(gpu=True, cores=16) == [1, 2, 4]


def test_the_table_says_each_pair_with_its_spread() -> None:
    """Equal precision first, then ours in the machine's own precision beside the default pipeline."""
    fast = [Sample(shape=RESNET, side=OURS_BF16, round=n, measurement=measurement(0.5)) for n in range(3)]
    report = markdown(results(*three_rounds(), *fast), load_sweep(STUDY).runs, "a.png")
    assert report.index("fp32 / fp32") < report.index("bf16 / fp32")
    row = "| ResNet-18 | 32×32 | fp32 / fp32 | 1,000 (500–1,000) | 500 (333–500) | 2.00 (1.00–3.00) | 3 |"
    assert row in report.splitlines()
    assert "| ResNet-18 | 32×32 | bf16 / fp32 | 2,000 (2,000–2,000) | 500 (333–500) | 4.00 (4.00–6.00) | 3 |" in report
    assert "A CPU(R) @ 2 GHz, 2 cores" in report
    assert "commit 0123456789ab" in report
    assert "torch 2.7.1" in report
    assert "Lightning at batch 512, no loader processes; other batches and loaders were not tried" in report


def test_the_report_says_when_its_numbers_are_weak() -> None:
    """A busy machine and a quick look are named above the table."""
    weak = markdown(results(*three_rounds(), busy_cores=1.5, quick=True), load_sweep(STUDY).runs, "a.png")
    assert "The machine was busy" in weak
    assert "A quick look" in weak
    sound = markdown(results(*three_rounds()), load_sweep(STUDY).runs, "a.png")
    assert "busy" not in sound
    assert "quick" not in sound


def test_the_hours_stand_beside_the_cost_models() -> None:
    """Both for this device: two cores share what the model says of one."""
    vit = [Sample(shape=VIT, side=OURS, round=0, measurement=measurement(20))]
    report = markdown(results(*three_rounds(), *vit), load_sweep(STUDY).runs, "a.png")
    hours = report[report.index("## The whole sweep") :]
    assert "| ours | fp32 |" in hours
    assert "TinyImageNet was not measured" in hours
    assert "cost model | fp32 |" in hours
    assert "| Lightning |" not in hours.split("## How")[0]  # of the ViT, nothing was measured


def test_growth_is_in_the_table() -> None:
    """Both ways: by images, with the straight line; by processes, against one."""
    alone = [
        GrowthSample(shape=RESNET, precision="fp32", images=n, measurements=(measurement(n / 1000, images=n),))
        for n in (512, 1024)
    ]
    both = GrowthSample(
        shape=RESNET, precision="fp32", images=1024, measurements=(measurement(1.524, images=1024),) * 2
    )
    report = markdown(results(*three_rounds(), growth=[*alone, both]), load_sweep(STUDY).runs, "a.png")
    assert "| ResNet-18 | 32×32 | fp32 | 512 | 0.512 | 0.512 |" in report
    assert "| ResNet-18 | 32×32 | fp32 | 2 | 2,024 | 1.51 | 1.00 |" in report
    assert picture(results(*three_rounds(), growth=[*alone, both])).startswith(b"\x89PNG")


def test_the_error_of_the_cost_model_is_in_the_table() -> None:
    """Twice too fast by operations; learned from the other number of images, as far off as the two differ."""
    operations = 4 * 37.0e6 * 2 / CPU.sustained / 2  # an image trained and validated, on the two cores
    alone = [
        GrowthSample(shape=RESNET, precision="fp32", images=n, measurements=(measurement(train, train / 3, images=n),))
        for n, train in ((512, 2 * 512 * operations * 3 / 4), (1024, 2 * 1024 * operations * 3 / 4 / 1.4))
    ]
    report = markdown(results(*three_rounds(), growth=alone), load_sweep(STUDY).runs, "a.png")
    assert "| ResNet-18 | 32×32 | fp32 | 2 | -40 (-50–-30) % | +6 (-29–+40) % |" in report
    without = markdown(results(*three_rounds()), load_sweep(STUDY).runs, "a.png")
    assert "| ResNet-18 | 32×32 | fp32 | 3 | -" in without
    assert without.split("## The cost model")[1].split("##")[0].count("| – |") == 1
    unknown = results(*three_rounds(), growth=alone)
    unknown = unknown.model_copy(update={"machine": unknown.machine.model_copy(update={"gpu": "NVIDIA Q1"})})
    assert "| fp32 | 2 | – | +6 (-29–+40) % |" in markdown(unknown, load_sweep(STUDY).runs, "a.png")


def test_the_same_results_give_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn anew from its numbers, a benchmark is the same report and the same picture."""
    whole = results(*three_rounds())
    write_json(tmp_path / "a.json", whole)
    assert main(["--render", str(tmp_path / "a.json"), "--output", str(tmp_path)]) == 0
    assert file_name(whole) == "a-cpu-2-ghz-2-cores"
    report = (tmp_path / "a-cpu-2-ghz-2-cores.md").read_text()
    assert capsys.readouterr().out == report
    assert "(a-cpu-2-ghz-2-cores.png)" in report
    assert (tmp_path / "a-cpu-2-ghz-2-cores.png").read_bytes() == picture(whole)


@pytest.mark.parametrize("arguments", [["--help"], ["--quick"]])
def test_without_lightning_there_is_help_and_a_sentence(arguments: list[str]) -> None:
    """What to install, and no traceback."""
    code = "import sys; sys.modules['lightning'] = None\n"
    code += "from benchmarks.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, cwd=REPOSITORY
    )
    if arguments == ["--help"]:
        assert (found.returncode, found.stderr) == (0, "")
        assert "python -m benchmarks" in found.stdout
    else:
        assert (found.returncode, found.stdout) == (1, "")
        assert found.stderr.count("\n") == 1
        assert "pip install -r benchmarks/requirements.txt" in found.stderr


def test_a_number_of_images_that_is_no_whole_step_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two sides would train different images."""
    assert main(["--without-peer", "--images", "600", "--device", "cpu", "--work", str(tmp_path)]) == 1
    assert "600 is not a multiple of 512" in capsys.readouterr().err


@pytest.fixture
def benchmarks(tmp_path: Path) -> Iterator[Command]:
    """`python -m benchmarks` on the CPU, its files in the test's folder."""
    command = Command("benchmarks", tmp_path, {"PYTHONPATH": str(REPOSITORY)})
    yield command
    command.end()


SMALL = (
    "--quick",
    "--without-peer",
    "--device",
    "cpu",
    "--architecture",
    "resnet18",
    "--precision",
    "fp32",
    "--cores",
    "1",
)


@pytest.mark.slow
def test_a_device_that_is_not_there_is_a_sentence(benchmarks: Command) -> None:
    """The process that looked says what to use."""
    answer = benchmarks("--without-peer", "--device", "tpu", "--work", "work", expect=1)
    assert answer.stderr == "benchmarks: unknown device 'tpu'; use auto, cpu or cuda\n"


@pytest.mark.slow
def test_a_benchmark_that_is_ended_leaves_no_process(benchmarks: Command) -> None:
    """SIGTERM ends the measured processes too, and nothing is written."""
    process = benchmarks.start(*SMALL, "--images", 512, "--work", "work", "--output", "results")
    measured: list[psutil.Process] = []
    patience = time.monotonic() + 60
    while not any("benchmarks.ours" in child.cmdline() for child in measured):
        assert time.monotonic() < patience
        assert process.poll() is None
        time.sleep(0.05)
        measured = psutil.Process(process.pid).children()
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not any(child.is_running() for child in measured)
    assert not (benchmarks.folder / "results").exists()


@pytest.mark.slow
def test_ours_is_measured_in_a_process_of_its_own(benchmarks: Command) -> None:
    """The whole road without the peer: images drawn, a process a number, the three files."""
    report = benchmarks(*SMALL, "--images", 512, "--work", "work", "--output", "results").stdout
    assert "| ResNet-18 | 32×32 | ours | fp32 |" in report
    assert sorted(path.suffix for path in (benchmarks.folder / "results").iterdir()) == [".json", ".md", ".png"]


@pytest.mark.slow
def test_processes_side_by_side_begin_their_epochs_together(tmp_path: Path) -> None:
    """None is measured while another still imports torch."""
    bench = Bench(tmp_path, device="cpu", cores=2, epochs=1)
    bench.draw("cifar10", 512)
    first, second = bench.measure_beside(RESNET, OURS, 512, 2)
    assert abs(first.began - second.began) < min(first.ended - first.began, second.ended - second.began)
    assert first.trained == first.validated == 512
