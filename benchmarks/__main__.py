"""`python -m benchmarks`: measure, and write the numbers, the report and the plot."""

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

from benchmarks import cases, growth, rounds
from benchmarks.errors import BenchmarkError
from benchmarks.launch import REPOSITORY, Bench, cores_in_use, look
from benchmarks.records import Results, Sample, Shape, Side
from benchmarks.summary import fastest
from sweep.config.load import load_sweep
from sweep.errors import SweepError
from trainer.data.prepared import DataError
from trainer.models.catalog import ARCHITECTURES
from trainer.records.files import RecordError, read_json, write_atomic, write_json

STUDY = REPOSITORY / "configs" / "thesis.yaml"
NO_LIGHTNING = (
    "Lightning is not installed, and it is what ours is measured beside; 'make bench' installs it, or "
    "'pip install -r benchmarks/requirements.txt', or leave it out with --without-peer"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0 done, 1 could not be measured, 130 interrupted."""
    call = _parser().parse_args(arguments)
    try:
        results = _results_of(call.render) if call.render else _measure(call)
        write(results, call.output, measured=call.render is None)
    except (BenchmarkError, DataError, SweepError, RecordError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; nothing is written", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def write(results: Results, folder: Path, *, measured: bool = True) -> None:
    """Write <device>.json (if just measured), .md and .png, and print the report."""
    from benchmarks.plot import picture  # slow to import, and --help does not need it
    from benchmarks.report import markdown

    folder.mkdir(parents=True, exist_ok=True)
    name = file_name(results)
    if measured:
        write_json(folder / f"{name}.json", results)  # first: a mistake in plotting must not lose hours of measuring
    report = markdown(results, load_sweep(STUDY).runs, f"{name}.png")
    write_atomic(folder / f"{name}.md", report.encode())
    write_atomic(folder / f"{name}.png", picture(results))
    print(report, end="")
    _say(f"written: {folder / name}.json, .md and .png")


def file_name(results: Results) -> str:
    """Name the files after the device; quick results get names of their own, so that they replace no full ones."""
    machine = results.machine
    words = machine.gpu or f"{machine.cpu} {machine.cores} cores"
    plain = re.sub(r"\((?:r|tm)\)", "", words, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") + ("-quick" if results.quick else "")


def _measure(call: argparse.Namespace) -> Results:
    if not call.without_peer and find_spec("lightning") is None:
        raise BenchmarkError(NO_LIGHTNING)
    if call.images and call.images % cases.STEP:
        raise BenchmarkError(
            f"--images {call.images} is not a multiple of {cases.STEP}, a step of the recipe; the sides would train "
            "different images"
        )
    machine = look(call.device, call.work)
    machine = machine.model_copy(update={"cores": min(call.cores or machine.cores, machine.cores)})
    gpu = machine.gpu is not None
    extent = cases.extent(gpu, call.quick)
    images = {name: call.images or extent.images[name] for name in call.architecture}
    precisions = list(dict.fromkeys(machine.auto if name == "auto" else name for name in call.precision))
    shapes = cases.shapes(call.architecture, call.size)
    bench = Bench(call.work, device=call.device, cores=machine.cores, epochs=call.epochs or extent.epochs)
    _say(f"{machine.gpu or machine.cpu}; {machine.cores} cores, {cores_in_use():.1f} in use; {', '.join(precisions)}")
    for shape in shapes:
        bench.draw(shape.dataset, images[shape.architecture])
    searched: list[Sample] = []
    wanted: list[tuple[Shape, list[Side]]] = []
    for shape in shapes:
        peers = []
        for precision in precisions if not call.without_peer else ():
            variants = cases.peer_variants(precision, gpu, machine.cores)
            tried = [] if call.quick else rounds.search(bench, shape, variants, images[shape.architecture], _say)
            searched += tried
            peers.append(fastest(tried) if tried else variants[0])
        wanted.append((shape, [*peers, *(cases.ours(precision) for precision in precisions)]))
    samples = rounds.compare(bench, wanted, images, call.rounds or extent.rounds, _say)
    grown = []
    for shape in shapes if not call.without_growth else ():
        if shape.architecture in extent.growth:
            count = call.images or extent.growth[shape.architecture]
            bench.draw(shape.dataset, count)
            grown += growth.with_images(bench, shape, precisions[-1], count, _say)
            grown += growth.with_processes(bench, shape, precisions[-1], count, gpu, _say)
    bench.tidy()
    return Results(
        date=datetime.now(timezone.utc).date().isoformat(),
        quick=call.quick,
        machine=machine,
        busy_cores=round(bench.busy_cores, 2),
        images=images,
        epochs=bench.epochs,
        search=searched,
        samples=samples,
        growth=grown,
    )


def _results_of(file: Path) -> Results:
    results = read_json(file, Results)
    if results is None:
        raise BenchmarkError(f"{file}: no such file")
    return results


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the trainer beside the same pipeline in Lightning; 'make bench' installs what that needs.",
        epilog="exit codes: 0 done, 1 could not be measured, 2 wrong call",
    )
    parser.add_argument("--quick", action="store_true", help="a rough look in about two minutes on two cores")
    what = parser.add_argument_group("what is measured")
    what.add_argument("--architecture", nargs="+", choices=list(ARCHITECTURES), default=list(ARCHITECTURES))
    what.add_argument(
        "--size", nargs="+", type=int, choices=list(cases.DATASET_OF_SIZE), default=[32], help="default 32"
    )
    what.add_argument("--precision", nargs="+", choices=["fp32", "auto"], default=["fp32", "auto"])
    what.add_argument("--device", default="auto", help="auto, cpu or cuda")
    what.add_argument("--without-peer", action="store_true", help="ours alone; needs no Lightning")
    what.add_argument("--without-growth", action="store_true", help="only the comparison")
    much = parser.add_argument_group("how much (the defaults depend on the device)")
    much.add_argument("--rounds", type=_count, metavar="N", help="each measures every side once")
    much.add_argument("--epochs", type=_count, metavar="N", help="measured, after one to warm up")
    much.add_argument("--images", type=_count, metavar="N", help="trained and validated an epoch, a multiple of 512")
    much.add_argument("--cores", type=_count, metavar="N", help="threads of a process; all cores by default")
    where = parser.add_argument_group("where")
    where.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks" / "results", metavar="DIR")
    where.add_argument(
        "--work", type=Path, default=REPOSITORY / "data" / "benchmarks", metavar="DIR", help="images, logs"
    )
    where.add_argument(
        "--render", type=Path, metavar="FILE", help="measure nothing: write FILE's report and plot again"
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"{number} is below 1")
    return number


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that `finally` ends the processes
    sys.exit(main())
