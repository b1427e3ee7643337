"""The report's promises that need no browser: what is on the page, what may not be, the same bytes every time."""

import base64
import hashlib
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from conftest import ONE_THREAD, REPOSITORY
from report_fixtures import (
    DAMAGED,
    DONE,
    FAILED,
    HOSTILE,
    INTERRUPTED,
    QUEUED,
    RUNNING,
    VARIANT,
    Page,
    Sweep,
    half_done,
    look,
    planned,
    status,
    whole,
)
from result_fixtures import planned_grid

from analysis.comparison.compare import compare
from analysis.comparison.published import read_reference
from analysis.errors import AnalysisError
from analysis.report import write_report
from analysis.report.build import MOST_PAGES, render_report
from analysis.report.charts import MOST_POINTS, Line, epochs_chart, ticks
from analysis.report.logs import CHARACTERS, LINES, read_tail
from analysis.report.runs import relative
from analysis.report.shrink import relative_path
from analysis.report.standing import SIGNS
from analysis.study import Study
from analysis.tables import build_tables
from sweep.cli.tables import LOOKS
from sweep.status.state import State
from trainer.records.run import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("report")]  # they share pages that take seconds to make

THEMES = {"light": r":root \{([^}]*)\}", "dark": r"prefers-color-scheme: dark\) \{\s*:root \{([^}]*)\}"}
TEXT_COLOURS = ("ink", "soft", "link", "focus", "val", "train", *(state.value for state in State))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep halfway; not to be changed."""
    return half_done(tmp_path_factory.mktemp("half") / "study")


@pytest.fixture(scope="module")
def html(sweep: Sweep) -> str:
    """Its report."""
    path = write_report(sweep.folder, sweep.study, sweep.statuses)
    assert path == sweep.folder / "report" / "index.html"
    return path.read_text()


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    """Its report, parsed."""
    return Page(html)


def articles(html: str) -> dict[str, str]:
    """Return the source of each run's page, by its id."""
    return {
        text.split('id="', 1)[1].split('"', 1)[0]: text for text in re.findall(r"<article.*?</article>", html, re.S)
    }


@pytest.mark.slow
def test_the_same_sweep_gives_the_same_bytes_wherever_it_lies(sweep: Sweep, html: str, tmp_path: Path) -> None:
    """Not the folder, nor the process, nor its order of sets is in the page."""
    shutil.copytree(sweep.folder, tmp_path / "else" / "study", ignore=shutil.ignore_patterns("report"))
    code = (
        "import sys; sys.path[:0] = ['tests', 'tests/support']\n"
        "from pathlib import Path\n"
        "from report_fixtures import half_done\n"
        "from analysis.report import write_report\n"
        f"folder = Path({str(tmp_path / 'else' / 'study')!r})\n"
        "sweep = half_done(folder)\n"
        "write_report(folder, sweep.study, sweep.statuses)\n"
    )
    environment = {**ONE_THREAD, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, env=environment, timeout=120)
    assert (tmp_path / "else" / "study" / "report" / "index.html").read_text() == html


def test_every_id_is_there_once_and_every_link_leads_to_one(page: Page) -> None:
    """Links inside the page are all the links there are."""
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {"overview", "tables", "figures", "runs", f"run-{DONE}", f"run-{VARIANT}", f"row-{FAILED}"} <= set(ids)
    links = [link for link in page.values("href") if link != "data:,"]
    assert links
    for link in links:
        assert link.startswith("#")
        assert unquote(link[1:]).partition("?")[0] in ids, link
    for described in page.values("aria-labelledby"):
        assert described in ids


def test_the_page_refers_to_nothing_outside_itself(sweep: Sweep, html: str, page: Page) -> None:
    """No address, no folder of this machine; pictures are in it."""
    assert all(source.startswith("data:image/") for source in page.values("src"))
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style
    assert not re.search(r"url\(|@import", style[1])
    assert not re.search(r"https?://", re.sub(r'src="data:[^"]*"', "", html))
    assert str(sweep.folder.parent) not in html
    assert f"runs/{FAILED}/logs/attempt-0001.log" in page.of(FAILED)


def test_the_policy_lets_in_the_pages_own_style_and_script_only(html: str, page: Page) -> None:
    """By their hashes; nothing on the page needs more: no style attribute, no handler in an attribute."""
    policy = next(element["content"] for _, element in page.elements if "http-equiv" in element)
    own = {}
    for tag in ("style", "script"):
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        assert len(found) == 1
        own[tag] = f"'sha256-{base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()}'"
    assert policy == (
        f"default-src 'none'; style-src {own['style']}; script-src {own['script']}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    attributes = {name for _, element in page.elements for name in element}
    assert "style" not in attributes
    assert not [name for name in attributes if name.startswith("on")]


def test_what_a_run_says_stays_text(page: Page) -> None:
    """Markup in a message, a host's name, a job, a traceback or a log is shown as it was written."""
    assert page.of(FAILED).count(HOSTILE) >= 6
    assert not [element for tag, element in page.elements if tag == "img" and element.get("src") == "x"]
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert "49" not in page.of(FAILED)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("colour", TEXT_COLOURS)
def test_text_stands_out_in_light_and_dark(theme: str, colour: str) -> None:
    """WCAG's 4.5 to 1, on every background there is."""
    style = (REPOSITORY / "analysis" / "report" / "style.css").read_text()
    block = re.search(THEMES[theme], style)
    assert block
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]+)", block[1]))
    for ground in ("page", "raised", "mark"):
        assert contrast(colours[colour], colours[ground]) >= 4.5, (colour, ground)


def contrast(one: str, other: str) -> float:
    """Return WCAG 2's ratio of two colours, "#rgb" or "#rrggbb"."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
        channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lower, higher = sorted((luminance(one), luminance(other)))
    return (higher + 0.05) / (lower + 0.05)


def test_every_table_is_on_the_page_cell_by_cell(sweep: Sweep, page: Page) -> None:
    """As the tables' own files have them."""
    tables = build_tables(sweep.study)
    assert len(tables) > 4
    for table in tables:
        assert page.tables[table.name] == [list(table.header), *(list(row) for row in table.rows)]
        for text in (table.caption, *table.notes):
            assert " ".join(text.split()) in page.text


def test_the_overview_says_how_every_run_stands(page: Page) -> None:
    """Counts by state, a sign and a word a run, and for what is missing the reason."""
    assert "5 of 10 runs have a result that counts" in page.text
    assert "■ 5 done ▶\ufe0e 1 running … 1 queued ‖ 1 interrupted ✗ 2 failed" in page.text
    rows = {row[0]: row[1:] for row in page.tables["matrix"]}
    assert rows["ResNet-18 / CIFAR-10"] == ["■seed 42: done■seed 43: done", "■seed 42: done✗seed 43: failed"]
    assert rows["ResNet-18 / CIFAR-10 / learning_rate=0.001"][1] == ""
    assert rows["ViT / CIFAR-10"][1] == "‖seed 42: interrupted…seed 43: queued"
    reasons = page.text.split("What is missing, and why")[1].split("What it took")[0]
    assert f"1 interrupted · node_fail · node died {INTERRUPTED}" in reasons
    assert f"✗ 1 failed · exception · ValueError: {HOSTILE} {FAILED}" in reasons


def test_the_page_of_a_finished_run_tells_all_of_it(page: Page) -> None:
    """Best values, attempts, hardware, environment, data, recipe, the end of the newest log."""
    text = page.of(DONE)
    for told in (
        "validation accuracy 0.8100 2",
        "4x Tesla V100-PCIE-16GB",
        "torch 2.7.1",
        "git 0123abc",
        "0" * 64,
        "epochs 12, not 180",
        "attempt 2 of resnet18-cifar10-r0.1-s42",
        "1 2025-01-01 00:00:00 2025-01-01 00:05:00",
    ):
        assert told in text, told
    assert "attempt 1 of" not in text
    assert "learning_rate 0.001, not 0.0003" in page.of(VARIANT)


def test_a_run_that_is_not_done_is_shown_as_it_stands(page: Page) -> None:
    """With the curves so far, when it was last heard of, and in no table."""
    text = page.of(RUNNING)
    assert "running" in text
    assert "Best so far, after 3 epochs." in text
    assert "validation accuracy 0.5000 0" in text
    assert "last sign of life 2025-01-01 03:00:00 UTC" in text
    assert "In no table and no figure: no result.json." in text
    assert "No epoch has been recorded yet." in page.of(QUEUED)


@pytest.mark.slow
def test_a_stale_run_shows_what_it_reached_and_that_it_does_not_count(sweep: Sweep) -> None:
    """Its result is on its own page and nowhere else."""
    run = next(run for run in sweep.study.planned if run.run.id == DONE)
    missing = {**sweep.study.missing, DONE: "stale: done, with another recipe than the plan's"}
    results = {run_id: result for run_id, result in sweep.study.results.items() if run_id != DONE}
    study = Study(sweep.study.name, sweep.study.planned, results, missing)
    stale = status(sweep.folder, run, State.STALE, attempt=2, message="done, with another recipe than the plan's")
    statuses = [stale if known.id == DONE else known for known in sweep.statuses]
    page = Page(render_report(sweep.folder, study, statuses))
    assert "In no table and no figure: stale: done, with another recipe than the plan's." in page.of(DONE)
    assert "validation accuracy 0.8100 2" in page.of(DONE)
    assert "4 of 10 runs have a result that counts" in page.text
    assert page.tables["table-4.5"][1][1] == "-inf"


@pytest.mark.slow
def test_a_damaged_result_is_said_and_changes_no_other_run(tmp_path: Path) -> None:
    """Its own page and row say what is wrong with which file; the pages of the others are the same bytes."""
    before = whole(tmp_path / "study")
    plan = planned()
    statuses = {known.id: known for known in before.statuses}
    first = render_report(before.folder, before.study, before.statuses)
    RunFolder(before.folder / "runs" / DAMAGED).result.write_text('{"schema_version": 1')
    statuses[DAMAGED] = statuses[DAMAGED]._replace(state=State.FAILED.value, message="finished, but no result")
    after = look(before.folder, plan, statuses)
    second = render_report(after.folder, after.study, after.statuses)
    old, new = articles(first), articles(second)
    assert {run for run in new if new[run] != old[run]} == {f"run-{DAMAGED}"}
    said = "In no table and no figure: result.json damaged: Invalid JSON"
    assert said in Page(second).of(DAMAGED)
    assert "9 of 10 runs have a result that counts" in Page(second).text
    assert "Nothing is missing." in Page(first).text


@pytest.mark.slow
def test_damaged_files_of_a_run_are_named_and_cost_only_their_own_part(sweep: Sweep, tmp_path: Path) -> None:
    """The rest of the run's page stays."""
    names = ("progress.json", "error.json", "attempts/0001.json")
    folder = tmp_path / "study"
    shutil.copytree(sweep.folder, folder)
    for name in names:
        (folder / "runs" / FAILED / name).write_text("{")
    page = Page(render_report(folder, sweep.study, sweep.statuses))
    for name in names:
        assert f"{name} damaged: Invalid JSON" in page.of(FAILED)
    assert str(folder) not in page.text
    assert "epochs 0 of 12" in page.of(FAILED)
    assert "first" in page.of(FAILED)


@pytest.mark.slow
def test_the_comparison_is_there_only_if_given(sweep: Sweep, html: str) -> None:
    """With its verdicts, tables and figures."""
    assert 'id="comparison"' not in html
    assert "#comparison" not in html
    reference = read_reference(REPOSITORY / "analysis" / "reference" / "thesis.csv")
    compared = Page(
        render_report(sweep.folder, sweep.study, sweep.statuses, comparison=compare(sweep.study, reference))
    )
    ids = compared.values("id")
    assert len(ids) == len(set(ids))
    assert {"comparison", "comparison-4.5", "figure-comparison-4.5"} <= set(ids)
    assert compared.text.count("ResNet-18 / CIFAR-10 (table 4.5)") >= 1


def test_a_large_sweep_gives_pages_only_to_what_is_not_done(tmp_path: Path) -> None:
    """And says so; the signs of the others lead to their rows."""
    plan = planned_grid((("resnet18", "cifar10"),), (0.1, 1.0), range(MOST_PAGES // 2 + 1))
    study = Study("large", plan, {}, {run.run.id: "no result.json" for run in plan})
    statuses = [status(tmp_path, run, State.FAILED if run.run.seed < 8 else State.DONE) for run in plan]
    page = Page(render_report(tmp_path, study, statuses))
    assert len(page.texts) == 1 + 16
    assert f"This sweep has {len(plan)} runs." in page.text
    assert "#row-resnet18-cifar10-r0.1-s8" in page.values("href")
    assert "#run-resnet18-cifar10-r0.1-s7" in page.values("href")
    assert page.values("href").count("#runs?state=failed") == 1  # after the first twelve names


def test_a_report_without_the_status_of_a_run_is_refused(sweep: Sweep) -> None:
    """It would leave the run out in silence."""
    with pytest.raises(AnalysisError, match=f"status of every planned run; that of {VARIANT} is missing"):
        render_report(sweep.folder, sweep.study, [known for known in sweep.statuses if known.id != VARIANT])


def test_states_have_the_signs_they_have_on_the_terminal() -> None:
    """All of them, in the same order."""
    assert {state: sign.rstrip("\ufe0e") for state, sign in SIGNS.items()} == {
        state.value: LOOKS[state][0] for state in State
    }
    assert list(SIGNS) == [state.value for state in State]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ()),
        (b"one\ntwo\n", ("one", "two")),
        (b"one\r\ntwo", ("one", "two")),
        (b"10%\r 50%\r100%\nend", ("100%", "end")),
        (b"50%\r100%\r", ("100%",)),
        (b"\x1b[1;31mred\x1b[0m \x1b]8;;file:///x\x07link\x1b]8;;\x07", ("red link",)),
        (b"a\x00b\x08c\x7fd\ttab", ("abcd\ttab",)),
        (b"\xff\xfe", ("\ufffd\ufffd",)),
        ("left \u202eright".encode(), ("left right",)),
    ],
)
def test_a_log_is_shown_as_a_terminal_would_leave_it(content: bytes, expected: tuple[str, ...], tmp_path: Path) -> None:
    """No control characters; of what was written over, the last."""
    path = tmp_path / "log"
    path.write_bytes(content)
    tail = read_tail(path)
    assert tail is not None
    assert tail.lines == expected
    assert not tail.cut


def test_a_long_log_is_cut_to_its_end(tmp_path: Path) -> None:
    """In lines, in characters, and without reading all of it; an absent one is no error, an unreadable one is said."""
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    tail = read_tail(path)
    assert tail is not None
    assert tail.cut
    assert tail.lines == tuple(f"line {number}" for number in range(100 - LINES, 100))
    path.write_text("\n".join("x" * 10_000 for _ in range(1000)))
    tail = read_tail(path)
    assert tail is not None
    assert tail.cut
    assert 0 < sum(map(len, tail.lines)) <= CHARACTERS
    assert read_tail(tmp_path / "none") is None
    folder = read_tail(tmp_path)
    assert folder is not None
    assert folder.problem == "cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.043), (0, 5.3), (0, 179), (-0.2, 0.3), (0, 1e-9), (3, 3), (0, 0)]
)
def test_ticks_enclose_what_is_drawn_by_round_steps(low: float, high: float) -> None:
    """A handful, evenly spaced."""
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 7
    steps = {f"{after - before:.3g}" for before, after in pairwise(found)}
    assert len(steps) == 1
    assert re.fullmatch(r"[125]|25", re.sub(r"[.0]|e.*", "", steps.pop()))


@pytest.mark.parametrize("epochs", [1, 2, 180, 5_000])
def test_a_chart_draws_every_curve_from_its_first_to_its_last_epoch(epochs: int) -> None:
    """Whatever their number; very many are thinned out."""
    values = [1 - 1 / (1 + epoch) for epoch in range(epochs)]
    chart = str(epochs_chart("Accuracy", [Line("val", "val", values)], epochs, (100, 150), (epochs - 1, values[-1])))
    path = re.search(r' d="M(\d+) (\d+)l([^"]*)"', chart)
    assert path
    steps = [int(number) for number in re.findall(r"-?\d+", path[3])]
    assert len(steps) // 2 <= MOST_POINTS + 2
    ring = re.search(r'cx="([\d.]+)" cy="([\d.]+)"', chart)
    assert ring
    assert (int(path[1]) + sum(steps[::2])) / 4 == pytest.approx(float(ring[1]), abs=0.2)
    assert (int(path[2]) + sum(steps[1::2])) / 4 == pytest.approx(float(ring[2]), abs=0.2)
    assert chart.count('class="milestone"') == (0 if epochs < 100 else 2)
    assert f"Accuracy over {epochs} epochs" in chart


@pytest.mark.parametrize(
    "path",
    [
        "M 1.234567 2 \nL 3.456 -0.005 \nL 3.4 100.25 \nz",
        "M 0 0 \nL 0.333333 0.333333 \nL 0.666667 0.666667 \nL 1 1",
        "M 10 20 \nQ 30.5 40.25 50 60 \nL 1 1 \nC 1 2 3 4 5.125 6 \nz \nM 5 5 \nL 6 6",
    ],
)
def test_a_shortened_path_goes_through_the_same_points(path: str) -> None:
    """To a hundredth, however many points came before."""
    short = relative_path(path)
    assert len(short) < len(path)
    assert absolute(short) == pytest.approx([float(number) for number in re.findall(r"-?[\d.]+", path)], abs=0.0051)


@pytest.mark.parametrize("path", ["", "m 1 2 l 3 4", "M 1 2 A 3 4 5 6 7 8 9", "M x y"])
def test_a_path_of_another_kind_is_left_as_it_is(path: str) -> None:
    """Better long than wrong."""
    assert relative_path(path) == path


def absolute(path: str) -> list[float]:
    """Return the points of a path as SVG defines them: the slow reference."""
    points: list[float] = []
    x = y = 0.0
    for command, rest in re.findall(r"([MlqcZz])([^A-Za-z]*)", path):
        numbers = [float(number) for number in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", rest)]
        if command == "M":
            x, y = numbers
            points += numbers
            start = (x, y)
        elif command == "z":
            x, y = start
        else:
            size = {"l": 2, "q": 4, "c": 6}[command]
            for first in range(0, len(numbers), size):
                for place in range(first, first + size, 2):
                    points += [x + numbers[place], y + numbers[place + 1]]
                x, y = points[-2:]
    return points


def test_paths_are_told_as_seen_from_the_sweeps_folder(tmp_path: Path) -> None:
    """Of what lies elsewhere only the name."""
    assert relative(str(tmp_path / "runs" / "a.log"), tmp_path) == "runs/a.log"
    assert relative("/elsewhere/a.log", tmp_path) == "a.log"
