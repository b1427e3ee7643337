"""The report of a benchmark in Markdown: a pure function of its results and the sweep's runs."""

import math
from collections.abc import Iterator, Sequence
from statistics import median

from benchmarks.records import LIGHTNING, OURS, Measurement, Program, Results, Sample, Shape, Side
from benchmarks.summary import (
    Spread,
    by_images,
    by_processes,
    combined_images_per_second,
    fit,
    grown,
    images_per_second,
    learned_errors,
    operations_errors,
    peak_share,
    projected_hours,
    ratios,
    speed,
)
from sweep.config.operations import device_kind, estimate_s
from sweep.config.schema import PlacedRun
from trainer.data.catalog import DATASETS
from trainer.models.catalog import ARCHITECTURES

TITLES: dict[Program, str] = {OURS: "ours", LIGHTNING: "Lightning"}
GIB = 2**30
BUSY = 0.2  # share of the cores used by others above which the report warns


def markdown(results: Results, runs: Sequence[PlacedRun], plot: str) -> str:
    """Format the report. runs: the sweep whose hours are projected. plot: the plot's file name."""
    parts = [_head(results), comparison(results), f"![Images a second of each process, and how they grow]({plot})"]
    parts += [details(results), hours(results, runs), _model(results), _growth(results), how(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def sides(results: Results, shape: Shape) -> list[Side]:
    """List the sides measured for a shape, in order of their first measurement."""
    return list(dict.fromkeys(sample.side for sample in results.samples if sample.shape == shape))


def shapes(results: Results) -> list[Shape]:
    return list(dict.fromkeys(sample.shape for sample in results.samples))


def measured(results: Results, shape: Shape, side: Side) -> list[Measurement]:
    return [sample.measurement for sample in results.samples if (sample.shape, sample.side) == (shape, side)]


def pairs(results: Results, shape: Shape) -> Iterator[tuple[Side, Side]]:
    """Yield (ours, Lightning) of equal precision, then ours in others beside Lightning's default, fp32."""
    mine = [side for side in sides(results, shape) if side.program == OURS]
    theirs = [side for side in sides(results, shape) if side.program == LIGHTNING]
    for across in (False, True):
        for side in mine:
            for other in theirs:
                if (side.precision == other.precision) if not across else (side.precision != other.precision == "fp32"):
                    yield side, other


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """Format a Markdown table; words: how many columns from the left hold text, the others hold numbers."""
    rule = ["---"] * words + ["--:"] * (len(header) - words)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def spread(value: Spread, form: str) -> str:
    """Format a median, with the range if there are several values."""
    if value.n == 1:
        return format(value.median, form)
    return f"{value.median:{form}} ({value.least:{form}}–{value.greatest:{form}})"


def network(shape: Shape) -> list[str]:
    """Name a shape in two cells: network, image size."""
    size = DATASETS[shape.dataset].image_size
    return [ARCHITECTURES[shape.architecture].title, f"{size}×{size}"]


def _head(results: Results) -> str:
    machine = results.machine
    device = machine.gpu or f"{machine.cpu}, {machine.cores} cores"
    host = f"{machine.cpu}, {machine.cores} cores, " if machine.gpu else ""
    versions: dict[str, str] = {}
    for sample in results.samples:
        versions |= sample.measurement.versions
    commit = f", commit {machine.commit[:12]}{' with changes' if machine.dirty else ''}" if machine.commit else ""
    peer = any(sample.side.program == LIGHTNING for sample in results.samples)
    lines = [
        f"# {'Ours beside Lightning' if peer else 'Ours'} on {device}",
        "",
        f"{results.date}{commit}. {host}{machine.memory_bytes / GIB:.0f} GiB of memory; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
    ]
    if results.busy_cores > BUSY * machine.cores:
        lines += [
            "",
            f"**The machine was busy**: others used {results.busy_cores:.1f} of {machine.cores} cores when a process "
            "was about to start. The numbers are too low and compare with no other report's.",
        ]
    if results.quick:
        lines += ["", "**A quick look** (`QUICK=1`): one round, few images; the ratios are rough."]
    return "\n".join(lines)


def comparison(results: Results) -> str:
    rows = []
    for shape in shapes(results):
        for mine, other in pairs(results, shape):
            speeds = [Spread.of(map(images_per_second, measured(results, shape, side))) for side in (mine, other)]
            rows.append(
                [
                    *network(shape),
                    f"{mine.precision} / {other.precision}",
                    *(spread(value, ",.0f") for value in speeds),
                    spread(ratios(results.samples, shape, mine, other), ".2f"),
                    str(speeds[0].n),
                ]
            )
    if not rows:
        return ""
    header = ["Network", "Images", "Ours / Lightning", "Ours: images/s", "Lightning: images/s", "Ratio", "Rounds"]
    words = "Images trained and validated a second, equally many of each; the ratio is taken within each round."
    return f"{words}\n\n{table(header, rows, 3)}"


def details(results: Results) -> str:
    gpu = results.machine.gpu is not None
    rows = []
    for shape in shapes(results):
        for side in sides(results, shape):
            measurements = measured(results, shape, side)
            medians = speed(measurements)
            numbers = [
                f"{medians.train:,.0f}",
                f"{medians.validation:,.0f}",
                spread(Spread.of(100 * peak_share(shape, one) for one in measurements), ".0f") + " %",
                f"{Spread.of(one.matrix_peak for one in measurements).median / 1e9:,.0f}",
                spread(Spread.of(one.startup_s for one in measurements), ".1f"),
                f"{medians.outside_s:.1f}",
                f"{max(one.memory_bytes for one in measurements) / GIB:.2f}",
            ]
            if gpu:
                numbers.append(f"{max(one.device_memory_bytes or 0 for one in measurements) / GIB:.2f}")
            rows.append([*network(shape), TITLES[side.program], side.precision, *numbers])
    header = ["Network", "Images", "Program", "Precision", "Training: images/s", "Validation: images/s"]
    header += ["Share of peak", "Peak: GFLOP/s", "Start-up: s", "Besides epochs: s", "Memory: GiB"]
    words = (
        "The peak is that of square matrix products in the same precision and process. Start-up is from the process's "
        "start to the end of its first step; besides epochs is what the first epoch's end comes later than a later "
        "epoch takes. Memory is the most a process held, loader processes not counted."
    )
    return f"## Each side\n\n{words}\n\n{table([*header, 'GPU memory: GiB'] if gpu else header, rows, 4)}"


def hours(results: Results, runs: Sequence[PlacedRun]) -> str:
    rows = [
        [TITLES[program], precision, _number(value)]
        for (program, precision), value in projected_hours(results.samples, runs).items()
    ]
    model = model_hours(results, runs)
    if not rows:
        return ""
    if model is not None:
        rows.append(["`sweep plan`'s cost model", "fp32", _number(model)])
    missing = [DATASETS[name].title for name in sorted(_unmeasured(results, runs))]
    words = (
        f"The {len(runs)} runs of `configs/thesis.yaml`, one after another on this device: the images of their epochs "
        "at the speeds above, and for each run what a process takes besides epochs."
    )
    if missing:
        words += (
            f" {' and '.join(missing)} was not measured: its speed is the other's, by the ratio of their operations."
        )
    return f"## The whole sweep\n\n{words}\n\n{table(['Program', 'Precision', 'Hours'], rows, 2)}"


def model_hours(results: Results, runs: Sequence[PlacedRun]) -> float | None:
    """Return the cost model's hours of the sweep on this device, None for a GPU it does not know."""
    machine = results.machine
    kind = device_kind(machine.gpu)
    if kind is None:
        return None
    seconds = sum(estimate_s(placed._replace(device=kind)) for placed in runs)
    return seconds / 3600 / (1 if machine.gpu else machine.cores)  # the model's CPU is one core


def _model(results: Results) -> str:
    """Compare the cost model's epochs, by operations and learned from the others, with the measured ones."""
    machine = results.machine
    kind = device_kind(machine.gpu)
    groups = grown(results.growth)
    rows = []
    for shape in shapes(results):
        for side in sides(results, shape):
            if side.program != OURS:
                continue
            alone = by_images(groups.get((shape, side.precision), []))
            found = list(alone.values()) or measured(results, shape, side)
            cores = 1 if machine.gpu else machine.cores
            by_operations = operations_errors(shape, found, kind, cores) if kind else None
            errors = (by_operations, learned_errors(shape, alone))
            cells = [spread(error, "+.0f") + " %" if error else "–" for error in errors]
            rows.append([*network(shape), side.precision, str(len(found)), *cells])
    if not rows:
        return ""
    words = (
        "By how much `sweep plan` takes an epoch for longer than it was (shorter: below 0): by operations alone, as "
        "before any run has finished, and by the times of the epochs with other numbers of images, as later."
    )
    header = ["Network", "Images", "Precision", "Numbers measured", "By operations", "By the others"]
    return f"## The cost model\n\n{words}\n\n{table(header, rows, 3)}"


def _unmeasured(results: Results, runs: Sequence[PlacedRun]) -> set[str]:
    measured_datasets = {shape.dataset for shape in shapes(results)}
    return {placed.spec.run.dataset for placed in runs} - measured_datasets


def _growth(results: Results) -> str:
    groups = grown(results.growth)
    slower, shared = [], []
    for (shape, precision), group in groups.items():
        alone = by_images(group)
        line = fit(alone.values()) if alone else None
        for images, one in alone.items():
            expected = line.fixed_s + line.each_s * one.trained if line else 0.0
            times = [f"{median(one.train_seconds):.3f}", f"{expected:.3f}"]
            slower.append([*network(shape), precision, f"{images:,}", *times])
        together = {count: (combined_images_per_second(found), found) for count, found in by_processes(group).items()}
        for count, (value, found) in together.items():
            memory = max(one.memory_bytes for one in found) / GIB
            against = value / next(iter(together.values()))[0]
            shared.append([*network(shape), precision, str(count), f"{value:,.0f}", f"{against:.2f}", f"{memory:.2f}"])
    parts = []
    if slower:
        words = "A training epoch of ours against the images of a ratio, and the straight line through these times:"
        header = ["Network", "Images", "Precision", "Training images", "Epoch: s", "Line: s"]
        parts.append(f"{words}\n\n{table(header, slower, 3)}")
    if shared:
        words = "Processes of ours side by side on the device, its cores shared out among them:"
        header = [
            "Network",
            "Images",
            "Precision",
            "Processes",
            "Together: images/s",
            "Against one",
            "Memory each: GiB",
        ]
        parts.append(f"{words}\n\n{table(header, shared, 3)}")
    return "\n\n".join(["## Growth", *parts]) if parts else ""


def how(results: Results) -> str:
    images = ", ".join(f"{count:,} for {ARCHITECTURES[name].title}" for name, count in results.images.items())
    lines = [
        "## How",
        "",
        f"Each number comes from a process of its own that trains and validates equally many drawn images ({images}), "
        f"one epoch to warm up and {results.epochs} measured. Sides take turns within a round, and every other round "
        "goes backwards.",
        "Ours takes the recipe's four replicas of 128 a step, with its augmentation and its evaluation after every "
        "epoch; Lightning takes the same images through PIL, torchvision's transforms and a DataLoader, with the "
        "default Trainer but for logger, progress bar and checkpoints. `docs/speed.md` says what favours whom.",
        "",
    ]
    chosen = [(shape, side) for shape in shapes(results) for side in sides(results, shape) if side.program == LIGHTNING]
    for shape, side in chosen:
        lines.append(
            f"- {' '.join(network(shape))}, {side.precision}: Lightning at {_variant(side)}"
            f"{_tried(results, shape, side)}."
        )
    return "\n".join(lines).rstrip()


def _number(value: float) -> str:
    """Format a number with about three significant digits."""
    return f"{value:,.{max(2 - math.floor(math.log10(max(value, 0.01))), 0)}f}"


def _variant(side: Side) -> str:
    loaders = f"{side.loader_workers} loader processes" if side.loader_workers else "no loader processes"
    return f"batch {side.batch}, {loaders}"


def _tried(results: Results, shape: Shape, side: Side) -> str:
    tried: list[Sample] = [one for one in results.search if one.shape == shape and one.side.precision == side.precision]
    if not tried:
        return "; other batches and loaders were not tried"
    speeds = (f"{_variant(one.side)}: {images_per_second(one.measurement):,.0f}" for one in tried)
    return f", the fastest of those tried once (images/s: {'; '.join(speeds)})"
