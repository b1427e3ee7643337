"""The report's promises kept in a real Chromium, opened from the disk as from a mail attachment."""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import program
from report_fixtures import DONE, FAILED, HOSTILE, VARIANT, half_done

from analysis.report import write_report

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chromium")]

DESKTOP = {"width": 1280, "height": 800}
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report on the disk, in a folder of an awkward name."""
    sweep = half_done(tmp_path_factory.mktemp("browser") / "my study #1 (50 %)")
    return write_report(sweep.folder, sweep.study, sweep.statuses).as_uri()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for the module."""
    path = program("chromium", "chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_report(chromium: Any, address: str) -> Iterator[Open]:
    """Open the report at a hash in a window of its own; it must ask for nothing and complain of nothing."""
    contexts = []
    heard: list[str] = []

    def open_at(hash_: str = "", **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: heard.append(f"dialog: {dialog.message}") or dialog.dismiss())
        page.on("request", lambda request: asked(request.url))
        page.goto(f"{address}{hash_}")
        return page

    def asked(url: str) -> None:
        if url.partition("#")[0] != address and not url.startswith("data:"):
            heard.append(f"request: {url}")

    yield open_at
    for context in contexts:
        context.close()
    assert heard == []


def ids(page: Any) -> list[str]:
    """List the runs that the table shows, top to bottom."""
    found: list[str] = page.locator("#run-table tbody tr:visible th").all_inner_texts()
    return found


def test_it_opens_from_the_disk_and_shows_everything(open_report: Open) -> None:
    """Without asking the network for anything, without an error, with every picture drawn."""
    page = open_report()
    for section in ("overview", "tables", "figures", "runs"):
        assert page.locator(f"#{section}").is_visible()
    assert page.locator("article").count() == 10
    assert page.locator("article:visible").count() == 0
    for image in page.locator("figure img").all():
        assert image.get_attribute("alt")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth > 100)")


def test_runs_are_filtered_and_the_count_is_announced(open_report: Open) -> None:
    """By each axis, by state, by words; together; and all come back."""
    page = open_report()
    status = page.get_by_role("status")
    assert status.inner_text() == "10 runs"
    page.get_by_label("architecture", exact=True).select_option("vit")
    assert status.inner_text() == "4 of 10 runs shown"
    assert all(run.startswith("vit-") for run in ids(page))
    page.get_by_label("state", exact=True).select_option("failed")
    assert ids(page) == [FAILED]
    page.get_by_role("button", name="Clear filters").click()
    assert status.inner_text() == "10 runs"
    page.get_by_label("variant", exact=True).select_option("learning_rate=0.001")
    assert [run[-19:] for run in ids(page)] == ["learning_rate=0.001"] * 2
    page.get_by_label("variant", exact=True).select_option("")
    page.get_by_label("text", exact=True).fill("NODE_FAIL vit")
    assert status.inner_text() == "1 of 10 runs shown"
    page.get_by_label("text", exact=True).fill("no such run")
    assert status.inner_text() == "0 of 10 runs shown"


def test_runs_are_sorted_by_a_click_on_a_column(open_report: Open) -> None:
    """Up, then down; numbers as numbers; what is empty last either way."""
    page = open_report()
    planned = ids(page)
    ratio = page.locator("th", has=page.get_by_role("button", name="ratio"))
    ratio.get_by_role("button").click()
    assert ratio.get_attribute("aria-sort") == "ascending"
    assert [re.search(r"-r([\d.]+)", run)[1] for run in ids(page)] == ["0.1"] * 6 + ["1.0"] * 4  # type: ignore[index]
    ratio.get_by_role("button").press("Enter")
    assert ratio.get_attribute("aria-sort") == "descending"
    assert "-r1.0-" in ids(page)[0]
    loss = page.get_by_role("button", name="val loss")
    for _ in range(2):
        loss.click()
        cells = page.locator("#run-table tbody tr td:nth-child(6)").all_inner_texts()
        assert cells == ["0.6600"] * 5 + [""] * 5
    assert page.locator("[aria-sort]").count() == 1
    page.get_by_role("button", name="Clear filters").click()
    assert ids(page) == planned
    assert page.locator("[aria-sort]").count() == 0


def test_a_view_is_in_the_address_and_can_be_sent(open_report: Open) -> None:
    """Who opens the address sees the same rows in the same order."""
    page = open_report()
    page.get_by_label("dataset", exact=True).select_option("cifar10")
    page.get_by_label("seed", exact=True).select_option("43")
    page.get_by_label("text", exact=True).fill("resnet18 done")
    page.get_by_role("button", name="val acc").click()
    page.get_by_role("button", name="val acc").click()
    hash_ = page.evaluate("location.hash")
    assert "seed=43" in hash_
    assert "sort=-val+acc" in hash_
    other = open_report(hash_)
    assert ids(other) == ids(page) != []
    assert other.get_by_label("text", exact=True).input_value() == "resnet18 done"
    assert other.locator("[aria-sort=descending]").inner_text().startswith("val acc")
    assert other.evaluate("document.getElementById('runs').getBoundingClientRect().top < innerHeight")


def test_a_sign_leads_to_its_run_and_back_leads_back(open_report: Open) -> None:
    """The run's page stands alone; Back shows the place one came from."""
    page = open_report()
    page.locator("#runs").scroll_into_view_if_needed()
    page.get_by_label("architecture", exact=True).select_option("vit")
    before = page.evaluate("scrollY")
    page.locator("#run-table").get_by_role("link", name=FAILED).click()
    assert page.locator("article:visible").count() == 1
    assert page.get_by_role("heading", name=FAILED).is_visible()
    assert not page.locator("#overview").is_visible()
    page.locator("article:visible [rel=next]").click()
    assert page.get_by_role("heading", name="vit-cifar10-r0.1-s43").is_visible()
    page.go_back()
    page.go_back()
    page.wait_for_function(f"Math.abs(scrollY - {before}) < 50")
    assert page.locator("#overview").is_visible()
    assert page.locator("article:visible").count() == 0
    assert page.get_by_role("status").inner_text() == "4 of 10 runs shown"
    page.get_by_role("link", name="seed 42: failed").click()
    assert page.get_by_role("heading", name=FAILED).is_visible()
    page.get_by_role("link", name="All runs").click()
    assert page.evaluate("location.hash") == "#runs?architecture=vit"


def test_a_run_is_opened_by_its_address(open_report: Open) -> None:
    """Also one whose id holds an equals sign; the focus is on it."""
    page = open_report(f"#run-{VARIANT}")
    assert page.get_by_role("heading", name=VARIANT).is_visible()
    assert page.evaluate("document.activeElement.id") == f"run-{VARIANT}"
    assert page.locator("article:visible").get_by_text("0.001, not 0.0003").is_visible()


def test_a_figure_is_enlarged_by_keyboard(open_report: Open) -> None:
    """Enter opens it, plus and minus change its size, Escape closes it and gives the focus back."""
    page = open_report()
    button = page.get_by_role("button", name="Enlarge figure 4.2").first
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible()
    image = dialog.locator("img")
    page.wait_for_function("document.getElementById('zoomed').style.width !== ''")
    width = image.bounding_box()["width"]
    page.keyboard.press("+")
    assert image.bounding_box()["width"] == pytest.approx(1.4 * width, rel=0.01)
    page.keyboard.press("-")
    page.keyboard.press("-")
    assert image.bounding_box()["width"] == pytest.approx(width / 1.4, rel=0.01)
    page.keyboard.press("0")
    assert image.bounding_box()["width"] == pytest.approx(width, rel=0.01)
    assert image.get_attribute("alt")
    dialog.get_by_role("button", name="Larger").click()
    assert image.bounding_box()["width"] == pytest.approx(1.4 * width, rel=0.01)
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert button.evaluate("button => button === document.activeElement")
    page.locator("figure img").first.click()
    assert dialog.is_visible()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()
    assert page.locator("figure .enlarge").first.evaluate("button => button === document.activeElement")


@pytest.mark.parametrize("width", [390, 360])
@pytest.mark.parametrize("hash_", ["", f"#run-{FAILED}", f"#run-{VARIANT}"])
def test_a_telephone_need_not_scroll_sideways(width: int, hash_: str, open_report: Open) -> None:
    """Only what is inside a table, a log or a figure's sheet does."""
    page = open_report(hash_, viewport={"width": width, "height": 800}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate("scrollTo(500, 0)")
    assert page.evaluate("scrollX") == 0
    if not hash_:
        table = page.locator("#runs .scroll")
        assert table.evaluate("box => box.scrollWidth > box.clientWidth")
        first = page.locator("#run-table tbody th").first
        left = first.bounding_box()["x"]
        table.evaluate("box => { box.scrollLeft = 400; }")
        assert first.bounding_box()["x"] == left


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_follows_the_readers_colours(scheme: str, dark: bool, open_report: Open) -> None:
    """Figures stay on white paper either way."""
    page = open_report(color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert (brightness(ground) < 60) is dark
    assert (brightness(ink) > 200) is dark
    assert brightness(page.locator(".paper").first.evaluate("e => getComputedStyle(e).backgroundColor")) == 255
    page.goto(f"{page.url.partition('#')[0]}#run-{DONE}")
    curve = page.locator("article:visible .curve").first.evaluate("e => getComputedStyle(e).stroke")
    assert (brightness(curve) > 128) is dark


def brightness(colour: str) -> float:
    """Return the mean of the channels of "rgb(1, 2, 3)"."""
    channels = [int(number) for number in re.findall(r"\d+", colour)[:3]]
    return sum(channels) / 3


def test_what_a_run_says_does_nothing(open_report: Open) -> None:
    """It is read as it was written, wherever it stands; no script of its ran."""
    page = open_report(f"#run-{FAILED}")
    text = page.locator("article:visible").inner_text()
    assert text.count(HOSTILE) >= 6
    assert page.evaluate("window.owned") is None
    assert page.locator("img[src=x]").count() == 0
    page.goto(f"{page.url.partition('#')[0]}#runs?state=failed")
    page.get_by_label("text", exact=True).fill(HOSTILE)
    assert page.evaluate("window.owned") is None
    other = open_report(page.evaluate("location.hash"))
    assert ids(other) == [FAILED]
    assert other.evaluate("window.owned") is None


def test_everything_is_there_without_javascript(open_report: Open) -> None:
    """The sections, and each run's page by its link; no control that would do nothing."""
    page = open_report(java_script_enabled=False)
    for section in ("overview", "tables", "figures", "runs"):
        assert page.locator(f"#{section}").is_visible()
    assert page.locator("#filters").is_hidden()
    assert page.get_by_role("button").count() == 0
    page.locator("#run-table").get_by_role("link", name=FAILED).click()
    assert page.get_by_role("heading", name=FAILED).is_visible()
    assert page.locator("article:visible .chart, article:visible pre").count() > 0
    page.get_by_role("link", name="All runs").click()
    assert page.locator("#overview").is_visible()


@pytest.mark.parametrize("hash_", ["", f"#run-{FAILED}"])
def test_the_tab_key_reaches_everything_in_order(hash_: str, open_report: Open) -> None:
    """From the skip link on, in the order of the page, and visibly."""
    page = open_report(hash_)
    wanted = page.evaluate(
        """() => [...document.querySelectorAll('a[href], button, select, input, summary, [tabindex="0"]')]
        .filter((element) => element.checkVisibility() && !element.closest('dialog'))
        .map((element, place) => { element.dataset.place = place; return place; })"""
    )
    assert len(wanted) > 10
    reached: list[int] = []
    for _ in range(len(wanted) + 1):  # from the run's page on, out of the window, and round to it again
        page.keyboard.press("Tab")
        place, outline = page.evaluate(
            "[document.activeElement.dataset.place, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if place is not None:
            assert outline != "none"
            reached.append(int(place))
    first = reached[0]
    assert reached[: len(wanted)] == wanted[first:] + wanted[:first]


def test_the_skip_link_leads_past_the_navigation(open_report: Open) -> None:
    """It is the first thing that Tab reaches, and seen when reached."""
    page = open_report()
    page.keyboard.press("Tab")
    link = page.get_by_role("link", name="Skip to the content")
    assert link.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_headings_go_down_one_level_at_a_time(open_report: Open) -> None:
    """On the sections and on a run's page; one of the first level."""
    for hash_ in ("", f"#run-{FAILED}", f"#run-{DONE}"):
        page = open_report(hash_)
        levels = [
            int(heading.evaluate("heading => heading.tagName[1]"))
            for heading in page.locator("h1:visible, h2:visible, h3:visible, h4:visible").all()
        ]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_on_paper_there_are_tables_and_figures_and_no_controls(open_report: Open, tmp_path: Path) -> None:
    """The runs' own pages are left out, unless one is open."""
    page = open_report()
    page.emulate_media(media="print")
    assert page.locator(".numbers:visible").count() == page.locator(".numbers").count() > 4
    assert page.locator("figure:visible").count() == page.locator("figure").count() > 4
    assert page.locator("article:visible, nav:visible, #filters:visible, figure button:visible").count() == 0
    pdf = page.pdf(path=tmp_path / "report.pdf")
    assert pdf.startswith(b"%PDF")
