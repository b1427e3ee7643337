"""The chapter's figures: which there are, that they show the results and no other, and say what is missing."""

import itertools
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from conftest import PLACES, REPOSITORY, program
from figure_fixtures import WHY, realistic_result, realistic_study
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from result_fixtures import HARDWARE, PAIRS, RATIOS, planned_grid, read_study, write_grid, write_result

from analysis.figures import build_figures, captions, write_figures
from analysis.figures.curves import mean_curve
from analysis.figures.plan import FigurePlan
from analysis.figures.side_by_side import chosen_ratios
from analysis.figures.style import COLOURS, apart, number, ratio_colours, readable_ticks, render
from analysis.formats import escape_markdown
from analysis.study import Group, Study
from trainer.records.plan import PlannedRun
from trainer.records.recipe import Recipe
from trainer.records.result import Hardware

SHORT = Recipe(epochs=12, lr_milestones=(6, 9))
FEW = (0.1, 0.2, 0.4, 1.0)
GROUP = Group("resnet18", "cifar10", "")
THESIS = [f"figure-4.{n}" for n in range(1, 18)]
LACKING = "resnet18-cifar10-r0.4-s43"


def small_grid(pairs: Sequence[tuple[str, str]] = PAIRS[:2], **more: object) -> list[PlannedRun]:
    """Plan few ratios of short runs."""
    return planned_grid(pairs, **{"ratios": FEW, "training": SHORT, **more})  # type: ignore[arg-type]


def plan_of(study: Study, name: str) -> FigurePlan:
    """Find a figure by the name of its files."""
    (plan,) = [plan for plan in build_figures(study) if plan.name == name]
    return plan


def words(figure: Figure) -> str:
    """Join all that is written in a figure."""
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    return "\n".join(text for text in texts if text)


def lines_by_label(figure: Figure, panel: int) -> dict[str, matplotlib.lines.Line2D]:
    """Return the labelled lines of one panel."""
    return {
        str(line.get_label()): line for line in figure.axes[panel].lines if not str(line.get_label()).startswith("_")
    }


# Which figures there are


def test_the_thesis_has_its_seventeen_figures_in_order() -> None:
    """4.1-4.13 are numbered as in the chapter; side by side and data scaling follow."""
    plans = build_figures(realistic_study(planned_grid(ratios=(0.1, 1.0), seeds=(42,), training=SHORT)))
    assert [plan.name for plan in plans] == THESIS
    captions = {plan.number: plan.caption for plan in plans}
    assert captions["4.1"].endswith("Upper is TinyImageNet, lower is CIFAR-10.")
    assert captions["4.5"].startswith("Surface plot of training and validation accuracy and loss of Vision Transformer")
    assert captions["4.6"] == (
        "Two-dimensional plot of validation accuracy and loss of ViT on CIFAR-10 across different dataset subset sizes."
    )
    assert "training accuracy and loss of ResNet-18 on TinyImageNet" in captions["4.10"]


def test_other_pairs_and_datasets_are_numbered_on_from_4_18_in_plan_order() -> None:
    """The thesis's numbers stay its own, whatever else a sweep holds."""
    pairs = [("mlp", "mnist"), ("resnet18", "cifar10"), ("mlp", "cifar10"), ("vit", "mnist")]
    plans = build_figures(realistic_study(small_grid(pairs, seeds=(42,))))
    numbered = {plan.number: plan.caption for plan in plans}
    assert list(numbered) == [f"4.{n}" for n in (1, 2, 3, 4, 14, 16, *range(18, 29))]
    assert "mlp on mnist" in numbered["4.18"]
    assert "mlp on CIFAR-10" in numbered["4.21"]
    assert "Vision Transformer on mnist" in numbered["4.24"]
    assert "identical data of mnist" in numbered["4.27"]
    assert "training images of mnist" in numbered["4.28"]


def test_one_architecture_is_not_set_side_by_side_with_itself() -> None:
    """No figure 4.14 and no ratio of images, but its data scaling."""
    plans = build_figures(realistic_study(small_grid(PAIRS[:1])))
    assert [plan.name for plan in plans] == ["figure-4.1", "figure-4.2", "figure-4.3", "figure-4.4", "figure-4.16"]
    assert "as a multiple" not in plans[-1].caption


def test_each_variant_has_its_own_figures() -> None:
    """Runs of different recipes are never averaged; names and captions say which they are."""
    variants = ("learning_rate=0.0001", "learning_rate=0.001")
    planned = [run for variant in variants for run in small_grid(PAIRS[:1], variant=variant)]
    plans = build_figures(realistic_study(planned))
    assert [plan.name for plan in plans[:4]] == [f"figure-4.{n}-{variant}" for n in (1, 2) for variant in variants]
    assert all(plan.caption.endswith(f"Variant: {plan.variant}.") for plan in plans)
    assert len({plan.name for plan in plans}) == len(plans) == 10


# What they show


@pytest.mark.parametrize(
    ("name", "metrics"),
    [("figure-4.3", ("val_accuracy", "val_loss")), ("figure-4.4", ("train_accuracy", "train_loss"))],
)
def test_a_curve_is_the_mean_of_the_seeds_and_its_band_their_deviation(name: str, metrics: tuple[str, str]) -> None:
    """Every drawn number is the results' own, epoch by epoch."""
    study = realistic_study(small_grid())
    figure = plan_of(study, name).draw()
    for panel, metric in enumerate(metrics):
        lines = lines_by_label(figure, panel)
        assert list(lines) == ["0.1 (5,000)", "0.2 (10,000)", "0.4 (20,000)", "1.0 (50,000)"]
        bands = figure.axes[panel].collections
        for cell, line, band in zip(study.cells(GROUP), lines.values(), bands, strict=True):
            histories = np.array([getattr(result.history, metric) for result in cell.results])
            assert line.get_ydata() == pytest.approx(histories.mean(axis=0))
            edges = band.get_paths()[0].vertices
            low, high = histories.mean(axis=0) - histories.std(axis=0, ddof=1), histories.std(axis=0, ddof=1)
            at_five = edges[edges[:, 0] == 5][:, 1]
            assert at_five.min() == pytest.approx(low[5])
            assert at_five.max() == pytest.approx(low[5] + 2 * high[5])


@pytest.mark.slow
def test_a_missing_seed_dashes_its_line_and_says_how_many_are_left() -> None:
    """2 of 3 seeds is written, drawn and noted; the mean is of the two; the other ratios stay as they were."""
    whole, lacking = realistic_study(small_grid()), realistic_study(small_grid(), [LACKING])
    plan = plan_of(lacking, "figure-4.3")
    lines = lines_by_label(plan.draw(), 0)
    line = lines.pop("0.4 (20,000), 2 of 3 seeds")
    assert line.is_dashed()
    two = [
        run.history.val_accuracy for identity, run in lacking.results.items() if "resnet18-cifar10-r0.4-" in identity
    ]
    assert len(two) == 2
    assert line.get_ydata() == pytest.approx(np.mean(two, axis=0))
    before = lines_by_label(plan_of(whole, "figure-4.3").draw(), 0)
    for label, other in lines.items():
        assert not other.is_dashed()
        assert np.array_equal(other.get_ydata(), before[label].get_ydata())
    assert plan.notes == ("Incomplete: ratio 0.4 (2 of 3 seeds).", f"Missing: {LACKING} ({WHY}).")
    assert plan_of(whole, "figure-4.3").notes == ()


@pytest.mark.parametrize("name", ["figure-4.1", "figure-4.2", "figure-4.4", "figure-4.14", "figure-4.16"])
def test_every_figure_of_an_incomplete_cell_notes_it(name: str) -> None:
    """What is averaged over fewer seeds than planned is said under each figure that shows it, with the reason."""
    notes = " ".join(plan_of(realistic_study(small_grid(), [LACKING]), name).notes)
    assert "ratio 0.4 (2 of 3 seeds)" in notes
    assert f"{LACKING} ({WHY})" in notes
    assert "2 of 3" not in " ".join(plan_of(realistic_study(small_grid()), name).notes)


@pytest.mark.parametrize(("name", "mark"), [("figure-4.2", "0.4 (2 of 3)"), ("figure-4.14", "ResNet-18: 2 of 3")])
@pytest.mark.slow
def test_an_incomplete_ratio_is_marked_in_the_picture(name: str, mark: str) -> None:
    """Also who looks at the picture alone sees it."""
    assert mark in words(plan_of(realistic_study(small_grid(), [LACKING]), name).draw())
    assert "2 of 3" not in words(plan_of(realistic_study(small_grid()), name).draw())


@pytest.mark.slow
def test_a_ratio_without_results_is_a_hole_in_the_surface() -> None:
    """Its neighbours are not joined across it: of three strips the two beside it are gone."""
    gone = [f"resnet18-cifar10-r0.4-s{seed}" for seed in (42, 43, 44)]
    strips = {
        len(absent): len(plan_of(realistic_study(small_grid(), absent), "figure-4.2").draw().axes[0].collections)
        for absent in ([], gone)
    }
    assert strips == {0: 3, 3: 1}
    assert "0.4 (0 of 3)" in words(plan_of(realistic_study(small_grid(), gone), "figure-4.2").draw())


def test_the_surface_stands_on_the_means() -> None:
    """Each ratio's line is at its place on the logarithmic axis, as high as the mean of its seeds."""
    study = realistic_study(small_grid())
    lines = [line.get_data_3d() for line in plan_of(study, "figure-4.2").draw().axes[0].lines]
    drawn = [(depth, height) for epochs, depth, height in lines if len(epochs) == SHORT.epochs]
    means = {cell.ratio: mean_curve(cell, "val_accuracy").mean for cell in study.cells(GROUP)}
    assert {round(float(10 ** depth[0]), 6) for depth, _ in drawn} == set(means)
    for depth, height in drawn:
        assert height == pytest.approx(means[round(float(10 ** depth[0]), 6)])


@pytest.mark.parametrize("name", ["figure-4.2", "figure-4.3", "figure-4.4", "figure-4.14"])
@pytest.mark.slow
def test_drops_of_the_learning_rate_are_marked(name: str) -> None:
    """At the milestones of the recipe, in every panel, and explained; without milestones nothing is."""
    figure = plan_of(realistic_study(small_grid()), name).draw()
    for axes in figure.axes:
        at = {float(np.atleast_1d(line.get_data()[0] if name != "figure-4.2" else line.get_data_3d()[0])[0])
              for line in axes.lines if len(line.get_xdata()) == 2}  # fmt: skip
        assert at == {6.0, 9.0}
    assert "learning rate drops" in words(figure)
    steady = realistic_study(small_grid(training=Recipe(epochs=12, lr_milestones=())))
    assert "learning rate drops" not in words(plan_of(steady, name).draw())


def test_every_run_is_a_point_of_training_time_with_the_marker_of_its_hardware() -> None:
    """Colour says the architecture, shape the hardware, and the legend both; times are the results'."""
    study = realistic_study(small_grid())
    figure = plan_of(study, "figure-4.1").draw()
    points: dict[tuple[str, str], list[float]] = {}
    for line in figure.axes[0].lines:
        if line.get_linestyle() == "None":
            key = (to_hex(line.get_color()).upper(), str(line.get_marker()))
            points.setdefault(key, []).extend(np.asarray(line.get_ydata(), dtype=float))
    assert len(points) == 6
    assert {colour for colour, _ in points} == set(COLOURS[:2])
    assert sum(map(len, points.values())) == len(study.results)
    seconds = [result.timing.train_seconds + result.timing.evaluation_seconds for result in study.results.values()]
    drawn = sorted(value for values in points.values() for value in values)
    unit = {"hours": 3600, "minutes": 60, "seconds": 1}[re.search(r"\((\w+)\)", words(figure))[1]]  # type: ignore[index]
    assert drawn == pytest.approx([value / unit for value in sorted(seconds)])
    for expected in ("ResNet-18", "ViT", "4x Tesla V100-PCIE-16GB", "4x Tesla P100-PCIE-12GB"):
        assert expected in words(figure)


def test_a_run_on_a_cpu_is_named_by_its_cpu() -> None:
    """The GPUs of a node that a run left idle did not train it."""
    planned = small_grid(PAIRS[:1], seeds=(42,))
    cpu = Hardware(**{**HARDWARE[42].model_dump(), "device": "cpu"})
    results = {run.run.id: realistic_result(run).model_copy(update={"hardware": cpu}) for run in planned}
    text = words(plan_of(Study("x", planned, results, {}), "figure-4.1").draw())
    assert cpu.cpu in text
    assert "Tesla" not in text


@pytest.mark.slow
def test_architectures_side_by_side_share_their_axes() -> None:
    """Same limits for all ratios of a metric, a line an architecture, each its mean."""
    study = realistic_study(small_grid())
    figure = plan_of(study, "figure-4.14").draw()
    accuracy = figure.axes[: len(FEW)]
    assert len({axes.get_ylim() for axes in accuracy}) == 1
    for axes, cell, other in zip(accuracy, study.cells(GROUP), study.cells(Group("vit", "cifar10", "")), strict=True):
        drawn = [line for line in axes.lines if len(line.get_xdata()) == SHORT.epochs]
        for line, of in zip(drawn, (cell, other), strict=True):
            assert line.get_ydata() == pytest.approx(mean_curve(of, "val_accuracy").mean)
        assert drawn[0].get_linestyle() != drawn[1].get_linestyle()


def test_ratios_shown_side_by_side_are_spread_and_complete_where_they_can_be() -> None:
    """Five of thirteen: both ends, and a complete neighbour rather than an incomplete one."""
    study = realistic_study(planned_grid(PAIRS[:2], training=SHORT))
    cells = [study.cells(group) for group in study.groups]
    assert chosen_ratios(cells) == [0.01, 0.03, 0.1, 0.4, 1.0]
    lacking = realistic_study(planned_grid(PAIRS[:2], training=SHORT), ["vit-cifar10-r0.1-s44"])
    chosen = chosen_ratios([lacking.cells(group) for group in lacking.groups])
    assert len(chosen) == 5
    assert 0.1 not in chosen


def test_data_scaling_says_what_it_found() -> None:
    """The fixture's ViT errs 1.04 times as much at each size: its extra images come out; the points are the runs'."""
    study = realistic_study(planned_grid(PAIRS[:2], training=SHORT))
    plan = plan_of(study, "figure-4.16")
    (needs,) = [note for note in plan.notes if note.startswith("Images that ViT needs for the same accuracy")]
    for ratio, low, high in re.findall(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", needs):
        assert 1 < float(low) < float(ratio) < float(high) < 1.5
    assert needs in plan.alt
    axes = plan.draw().axes[0]
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    images = sorted(float(x) for line in points for x in np.asarray(line.get_xdata(), dtype=float))
    assert images == sorted(result.data.train_samples for result in study.results.values())


def test_too_few_sizes_get_points_and_a_sentence_but_no_curve() -> None:
    """Three ratios do not carry a fit; the figure says so and shows what there is."""
    plan = plan_of(realistic_study(small_grid(ratios=(0.1, 0.2, 1.0))), "figure-4.16")
    assert any("no curve, as a fit needs 4" in note for note in plan.notes)
    assert "no two curves to compare" in words(plan.draw())


@pytest.mark.parametrize(("peak", "cut"), [(900.0, True), (2.0, False)])
@pytest.mark.slow
def test_a_peak_of_loss_does_not_press_the_rest_flat(peak: float, cut: bool) -> None:
    """An epoch of an exploded loss leaves the axis, and a note says how high it goes; an ordinary one stays."""
    planned = small_grid(PAIRS[:1], ratios=(1.0,), training=Recipe(epochs=100))
    results = {}
    for identity, result in realistic_study(planned).results.items():
        history = result.history.model_copy(update={"val_loss": [peak, *result.history.val_loss[1:]]})
        results[identity] = result.model_copy(update={"history": history})
    for name, axis in (("figure-4.3", "y"), ("figure-4.2", "z")):
        plan = plan_of(Study("x", planned, results, {}), name)
        assert any("the mean rises to 900" in note for note in plan.notes) is cut
        top = max(getattr(plan.draw().axes[1], f"get_{axis}lim")())
        assert top < 5
        assert bool(top < peak) is cut


def test_mixed_results_are_marked_under_the_figure() -> None:
    """Where results of two states of the code stand together the note has the dagger of the tables."""
    study = realistic_study(small_grid(PAIRS[:1]))
    odd = study.results[LACKING]
    environment = odd.environment.model_copy(update={"git_commit": "f" * 40})
    mixed = {**study.results, LACKING: odd.model_copy(update={"environment": environment})}
    for plan in build_figures(Study("x", study.planned, mixed, {})):
        assert any(note.startswith("†") and LACKING in note for note in plan.notes)
    assert not any("†" in note for plan in build_figures(study) for note in plan.notes)


# The files


@pytest.mark.slow
def test_every_figure_is_written_as_pdf_and_png_beside_its_captions(tmp_path: Path) -> None:
    """Names, numbers, kinds, sizes: print-ready PDF pages with embedded fonts, sharp PNGs that show something."""
    told: list[tuple[str, int, int]] = []
    study = realistic_study(small_grid(), [LACKING])
    written = write_figures(tmp_path, study, lambda *step: told.append(step))
    names = [plan.name for plan in build_figures(study)]
    assert [path.name for path in written] == [
        *(f"{name}.{ending}" for name in names for ending in ("pdf", "png")),
        "captions.md",
    ]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {path.name for path in written}
    assert told == [("figures", done, len(names)) for done in range(1, len(names) + 1)]
    for path in written[:-1]:
        content = path.read_bytes()
        if path.suffix == ".pdf":
            assert content.startswith(b"%PDF")
            assert content.rstrip().endswith(b"%%EOF")
            assert len(re.findall(rb"/Type /Page\b", content)) == 1
            assert b"/FontFile2" in content
            assert b"/Type3" not in content
            assert not re.search(rb"/CreationDate|/Producer|[Mm]atplotlib", content)
        else:
            with Image.open(path) as image:
                assert image.width == pytest.approx(160 / 25.4 * 200, abs=1)
                assert image.height > 500
                assert np.asarray(image.convert("L")).std() > 5
                assert "Software" not in image.info
    text = written[-1].read_text()
    for plan in build_figures(study):
        for part in (f"Figure {plan.number}. {plan.caption}", plan.alt, *plan.notes):
            assert part in text


def test_fonts_are_embedded_as_truetype(tmp_path: Path) -> None:
    """A printer needs no font of its own, and text stays text."""
    pdf = tmp_path / "figure.pdf"
    pdf.write_bytes(render(plan_of(realistic_study(small_grid(PAIRS[:1])), "figure-4.3").draw(), "pdf"))
    listed = subprocess.run(
        [program("pdffonts", "poppler-utils"), str(pdf)], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    fonts = listed.splitlines()[2:]
    assert fonts
    assert all("TrueType" in font and re.search(r"yes\s+yes\s+(yes|no)", font) for font in fonts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["figure-4.1", "figure-4.2", "figure-4.3", "figure-4.14", "figure-4.16"])
def test_the_same_results_give_the_same_bytes(name: str) -> None:
    """Built, drawn and rendered twice from the start; also if something else was drawn in between."""

    def rendered() -> list[bytes]:
        plan = plan_of(realistic_study(small_grid()), name)
        return [render(plan.draw(), ending) for ending in ("pdf", "png", "svg")]

    first = rendered()
    render(plan_of(realistic_study(small_grid(PAIRS[:1])), "figure-4.4").draw(), "svg")
    assert rendered() == first


@pytest.mark.slow
def test_another_process_and_another_users_settings_give_the_same_bytes(tmp_path: Path) -> None:
    """Neither the hash seed nor a matplotlibrc of the user's has a say."""
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 30\nsavefig.bbox: tight\nbackend: svg\n")
    code = (
        f"import sys, hashlib\nsys.path[:0] = {[str(Path(__file__).parent), *PLACES]!r}\n"
        "from test_figures import plan_of, render, realistic_study, small_grid\n"
        "study = realistic_study(small_grid())\n"
        "for name in ('figure-4.1', 'figure-4.3'):\n"
        "    for ending in ('pdf', 'svg'):\n"
        "        print(hashlib.sha256(render(plan_of(study, name).draw(), ending)).hexdigest())\n"
    )
    outputs = []
    for seed, settings in (("1", {}), ("2", {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")})):
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONHASHSEED": seed, **settings}
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120, cwd=REPOSITORY,
            env=environment,
        )  # fmt: skip
        outputs.append(done.stdout.split())
    assert len(outputs[0]) == 4
    assert outputs[0] == outputs[1]


def test_drawing_leaves_the_callers_settings_alone() -> None:
    """Someone's notebook looks afterwards as before, and no figure stays open."""
    with matplotlib.rc_context({"font.size": 33.0, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        render(plan_of(realistic_study(small_grid(PAIRS[:1])), "figure-4.3").draw(), "svg")
        assert dict(matplotlib.rcParams) == before


@pytest.mark.slow
def test_a_curves_svg_is_light_enough_for_a_report() -> None:
    """All thirteen ratios over 180 epochs with their bands; the surface's pixels are inside its SVG."""
    study = realistic_study(planned_grid(PAIRS[:1], training=Recipe()))
    svg = render(plan_of(study, "figure-4.3").draw(), "svg")
    assert len(svg) < 300_000
    assert b"<image" not in svg
    surface = render(plan_of(study, "figure-4.2").draw(), "svg")
    assert b"<image" in surface
    assert surface.count(b"<path") < 2_000  # its faces alone are 8,592


@pytest.mark.slow
def test_figures_that_no_longer_belong_are_removed_and_the_users_files_kept(tmp_path: Path) -> None:
    """A plan that lost an architecture leaves no figure of it; what is not named like ours stays."""
    folder = tmp_path / "figures"
    write_figures(tmp_path, realistic_study(small_grid(seeds=(42,), training=Recipe(epochs=2, lr_milestones=(1,)))))
    own = [folder / name for name in ("figure-4.5-mine.pdf", "figure-4.5.pdf.bak", "figure-5.1.pdf", "notes.md")]
    for path in own:
        path.write_text("mine")
    stale = folder / "figure-4.3-learning_rate=0.1.png"
    stale.write_text("of an earlier sweep")
    assert (folder / "figure-4.5.pdf").exists()
    study = realistic_study(small_grid(PAIRS[:1], seeds=(42,), training=Recipe(epochs=2, lr_milestones=(1,))))
    written = write_figures(tmp_path, study)
    assert set(folder.iterdir()) == {*written, *own}


@pytest.mark.slow
def test_a_corrupted_result_changes_its_own_figures_only(tmp_path: Path) -> None:
    """ViT's run is damaged: all that shows ResNet-18 alone is the same to the byte, what shows ViT says why."""
    planned = small_grid(seeds=(42, 43))
    for run in planned:
        write_result(tmp_path, realistic_result(run))
    whole = {plan.name: plan for plan in build_figures(read_study(tmp_path, planned, {}))}
    bytes_before = {name: render(plan.draw(), "png") for name, plan in whole.items()}
    (tmp_path / "runs" / "vit-cifar10-r0.2-s43" / "result.json").write_text("{")
    hurt = {plan.name: plan for plan in build_figures(read_study(tmp_path, planned, {}))}
    changed = {name for name, plan in hurt.items() if render(plan.draw(), "png") != bytes_before[name]}
    assert changed == {"figure-4.1", "figure-4.5", "figure-4.6", "figure-4.7", "figure-4.14", "figure-4.16"}
    assert {name for name in whole if hurt[name].notes != whole[name].notes} == changed
    assert all("vit-cifar10-r0.2-s43 (result.json damaged" in " ".join(hurt[name].notes) for name in changed)


@pytest.mark.slow
def test_figures_load_no_torch_and_no_pandas() -> None:
    """Nor what submits; and the package alone loads no matplotlib."""
    code = (
        "import sys, analysis\nassert 'matplotlib' not in sys.modules\n"
        "import analysis.figures\nfor heavy in ('torch', 'pandas', 'submitit', 'sklearn', 'matplotlib.pyplot'):\n"
        "    assert heavy not in sys.modules, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=REPOSITORY)


# Unusual sweeps

LONG = "an_architecture_with_a_name_" + "so_" * 20 + "long"
ODD = "data$et_with_a_name_" + "just_" * 12 + "as_long"
ONE_EPOCH = Recipe(epochs=1, lr_milestones=())
UNUSUAL: dict[str, tuple[list[PlannedRun], str]] = {
    "one seed": (small_grid(seeds=(42,)), ""),
    "one ratio": (small_grid(ratios=(0.3,)), ""),
    "one epoch": (small_grid(training=ONE_EPOCH), ""),
    "one of each": (small_grid(PAIRS[:1], ratios=(1.0,), seeds=(42,), training=ONE_EPOCH), ""),
    "no results at all": (small_grid(), "."),
    "a group without results": (small_grid(), "^vit"),
    "a seed without results": (small_grid(), "-s43$"),
    "twenty seeds": (small_grid(PAIRS[:1], ratios=(0.1, 1.0), seeds=range(20)), "-s7$"),
    "many architectures": (small_grid([(f"net{n}", "cifar10") for n in range(7)], ratios=(0.1, 1.0)), ""),
    "long names": (small_grid([(LONG, ODD), ("vit", ODD)]), "-r0.2-"),
    "every other run": (small_grid(PAIRS[:1], ratios=RATIOS, seeds=(42, 43)), "-r0.0.*-s42$|-r0.[1-9].*-s43$"),
    "forty ratios": (small_grid(PAIRS[:1], ratios=[n / 40 for n in range(1, 41)], seeds=(42,)), ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_sweeps_are_drawn(case: str) -> None:
    """Nothing crashes and nothing warns; every figure stays as wide as the text and says something."""
    planned, absent = UNUSUAL[case]
    missing = [run.run.id for run in planned if absent and re.search(absent, run.run.id)]
    for plan in build_figures(realistic_study(planned, missing)):
        assert render(plan.draw(), "svg").startswith(b"<?xml")
        assert plan.alt.endswith(".")
        shown = "ResNet-18" not in plan.caption or "ViT" in plan.caption or case != "a group without results"
        assert any(note.startswith("Missing: ") for note in plan.notes) is bool(missing and shown)


@pytest.mark.parametrize("number", ["4.1", "4.2", "4.3", "4.4", "4.14", "4.16"])
def test_a_figure_with_nothing_to_show_says_so(number: str) -> None:
    """In the picture, and why in the notes."""
    planned = small_grid()
    plan = plan_of(realistic_study(planned, [run.run.id for run in planned]), f"figure-{number}")
    assert "no finished run" in words(plan.draw())
    assert "no finished run" in plan.alt
    assert any(WHY in note for note in plan.notes)


@pytest.mark.slow
def test_equal_curves_and_times_are_drawn(tmp_path: Path) -> None:
    """Results that all are the same number leave no axis without an extent."""
    planned = small_grid()
    write_grid(tmp_path, planned)
    for plan in build_figures(read_study(tmp_path, planned, {})):
        assert render(plan.draw(), "png")


def test_a_dollar_in_a_name_is_a_dollar() -> None:
    """Names are not taken for formulas."""
    name = "a$\\frac$c"  # as a formula it would be an error
    study = realistic_study(small_grid([("resnet18", name)], seeds=(42,)))
    assert name in words(plan_of(study, "figure-4.1").draw())
    assert escape_markdown(name) in captions(build_figures(study))


# The style


def test_ratios_get_darker_in_grey_as_they_grow() -> None:
    """Their order survives a black-and-white print."""
    greys = [np.dot([int(colour[at : at + 2], 16) for at in (1, 3, 5)], (0.299, 0.587, 0.114))
             for colour in ratio_colours(13)]  # fmt: skip
    assert all(first > second + 5 for first, second in itertools.pairwise(greys))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.75, 1.35, [0.8, 0.9, 1.0, 1.1, 1.2, 1.3]),
        (450, 55_000, [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000]),
        (3.0, 3.1, [3.0, 3.02, 3.04, 3.06, 3.08, 3.1]),
        (0.001, 100_000, [0.001, 0.01, 0.1, 1, 10, 100, 1_000, 10_000, 100_000]),
    ],
)
def test_logarithmic_axes_are_ticked_at_round_values(low: float, high: float, ticks: list[float]) -> None:
    """Few enough to read, inside the axis."""
    assert readable_ticks(low, high) == ticks


def test_labels_keep_their_distance_and_the_first_named_come_first() -> None:
    """A label that must be there pushes out a neighbour, never the other way round."""
    places = [0.0, 0.1, 0.2, 0.3, 1.0]
    assert apart(places, [], 0.25) == [0, 3, 4]
    assert apart(places, [1], 0.25) == [1, 4]
    assert apart([], [], 0.25) == []


@pytest.mark.parametrize(("value", "text"), [(0.05, "0.05"), (1.5, "1.5"), (20.0, "20"), (50_000.0, "50,000")])
def test_ticks_are_written_as_a_reader_would(value: float, text: str) -> None:
    """No exponents, thousands grouped."""
    assert number(value) == text
