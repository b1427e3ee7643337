"""A small sweep halfway, for the tests of the report: finished, failed, running, damaged and queued runs.

`half_done` writes it into a folder. Its failed run has `HOSTILE` in every string that may be arbitrary.
"""

from collections.abc import Mapping
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from result_fixtures import STARTED, make_result, planned_grid, read_study, write_result

from analysis.study import Standing, Study
from sweep.status.state import State
from trainer.records.attempt import AttemptRecord, Cause, Outcome
from trainer.records.files import to_json
from trainer.records.plan import PlannedRun
from trainer.records.process import this_process
from trainer.records.recipe import Recipe
from trainer.records.result import History
from trainer.records.run import RunFolder
from trainer.records.status import ErrorRecord, Progress

SHORT = Recipe(epochs=12, lr_milestones=(6, 9))
HOSTILE = '<img src=x onerror="owned=1"> </script><script>owned=2</script> \' {{ 7*7 }} <b>bold</b> & &amp;'

FAILED = "vit-cifar10-r0.1-s42"
RUNNING = "vit-cifar10-r0.1-s43"
INTERRUPTED = "vit-cifar10-r1.0-s42"
QUEUED = "vit-cifar10-r1.0-s43"
DAMAGED = "resnet18-cifar10-r1.0-s43"
DONE = "resnet18-cifar10-r0.1-s42"
VARIANT = "resnet18-cifar10-r0.1-s42-learning_rate=0.001"
LOG = f"first\n{HOSTILE}\n\x1b[31mred\x1b[0m\nepoch 1\repoch 2\rlast\n"


class Sweep(NamedTuple):
    """A sweep on disk, and the report's input."""

    folder: Path
    study: Study
    statuses: list[Standing]


def planned() -> list[PlannedRun]:
    """Return the plan: two architectures, two ratios, two seeds, and one ratio with another learning rate."""
    pairs = (("resnet18", "cifar10"), ("vit", "cifar10"))
    faster = SHORT.model_copy(update={"learning_rate": 0.001})
    return [
        *planned_grid(pairs, (0.1, 1.0), (42, 43), training=SHORT),
        *planned_grid(pairs[:1], (0.1,), (42, 43), training=faster, variant="learning_rate=0.001"),
    ]


def whole(folder: Path) -> Sweep:
    """Write the sweep with a result for every run."""
    plan = planned()
    for run in plan:
        write_result(folder, make_result(run, attempts=2))
        for number, outcome in ((1, "interrupted"), (2, "done")):
            write_attempt(folder, run, number, outcome)
    return look(folder, plan, {run.run.id: done(folder, run) for run in plan})


def half_done(folder: Path) -> Sweep:
    plan = planned()
    whole(folder)
    by_id = {run.run.id: run for run in plan}
    for run_id in (FAILED, RUNNING, INTERRUPTED, QUEUED):
        files = RunFolder(folder / "runs" / run_id)
        files.result.unlink()
        files.attempt(2).unlink()
        files.log(2).unlink()
    RunFolder(folder / "runs" / DAMAGED).result.write_text('{"schema_version": 1')
    statuses = {run.run.id: done(folder, run) for run in plan}
    statuses |= {
        FAILED: status(
            folder,
            by_id[FAILED],
            State.FAILED,
            cause=Cause.EXCEPTION.value,
            message=f"ValueError: {HOSTILE}",
            node=HOSTILE,
        ),
        RUNNING: status(folder, by_id[RUNNING], State.RUNNING, epoch=3),
        INTERRUPTED: status(
            folder, by_id[INTERRUPTED], State.INTERRUPTED, cause=Cause.NODE_FAIL.value, message="node died"
        ),
        QUEUED: status(folder, by_id[QUEUED], State.QUEUED),
        DAMAGED: status(
            folder, by_id[DAMAGED], State.FAILED, cause=Cause.EXCEPTION.value, message="finished, but damaged"
        ),
    }
    write_attempt(folder, by_id[FAILED], 1, "failed", Cause.EXCEPTION, HOSTILE)
    write_attempt(folder, by_id[RUNNING], 1, None)
    files = RunFolder(folder / "runs" / FAILED)
    files.error.write_bytes(
        to_json(
            ErrorRecord(
                run_id=FAILED,
                cause=Cause.EXCEPTION,
                exception="ValueError",
                message=HOSTILE,
                traceback=f"Traceback (most recent call last):\nValueError: {HOSTILE}",
                attempt=1,
                job=HOSTILE,
                host=HOSTILE,
                log="attempt-0001.log",
                time=STARTED,
            )
        )
    )
    files.log(1).write_text(LOG)
    write_progress(folder, by_id[RUNNING], 3)
    return look(folder, plan, statuses)


def look(folder: Path, plan: list[PlannedRun], statuses: Mapping[str, Standing]) -> Sweep:
    """Read the sweep as the folder is now."""
    return Sweep(folder, read_study(folder, plan, {}), [statuses[run.run.id] for run in plan])


def done(folder: Path, run: PlannedRun) -> Standing:
    return status(folder, run, State.DONE, epoch=run.training.epochs, attempt=2, best_val_accuracy=0.81)


def status(folder: Path, run: PlannedRun, state: State, attempt: int = 1, **more: object) -> Standing:
    """Create a status with the fields that every run has."""
    return Standing(
        id=run.run.id,
        state=state.value,
        epochs=run.training.epochs,
        attempt=attempt,
        log=str(RunFolder(folder / "runs" / run.run.id).log(attempt)),
        updated=STARTED + timedelta(hours=3),
    )._replace(**more)


def write_attempt(
    folder: Path,
    run: PlannedRun,
    number: int,
    outcome: Outcome | None,
    cause: Cause | None = None,
    message: str | None = None,
) -> None:
    """Write an attempt's record and a log of one line."""
    files = RunFolder(folder / "runs" / run.run.id)
    files.attempts.mkdir(parents=True, exist_ok=True)
    files.logs.mkdir(exist_ok=True)
    record = AttemptRecord(
        number=number,
        started=STARTED,
        ended=STARTED + timedelta(minutes=5) if outcome else None,
        host="node-1",
        job="17",
        outcome=outcome,
        run_id=run.run.id,
        submission=None,
        process=this_process().model_copy(update={"pid": 1, "started": 1.0, "host": "node-1"}),
        log="attempt.log",
        cause=cause,
        message=message,
    )
    files.attempt(number).write_bytes(to_json(record))
    files.log(number).write_text(f"attempt {number} of {run.run.id}\n")


def write_progress(folder: Path, run: PlannedRun, epochs: int) -> None:
    """Write a running run's progress."""
    curve = [0.5 - 0.1 * epoch for epoch in range(epochs)]
    record = Progress(
        run_id=run.run.id,
        attempt=1,
        job="17",
        host="node-1",
        epoch=epochs,
        epochs=run.training.epochs,
        step=1,
        steps=2,
        started=STARTED,
        heartbeat=STARTED,
        start_epoch=0,
        history=History(**dict.fromkeys(History.model_fields, curve)),
    )
    RunFolder(folder / "runs" / run.run.id).progress.write_bytes(to_json(record))


class Page(HTMLParser):
    """A parsed page: its elements with attributes, and the text of each run's page.

    tables: the cells' text, by the id of the caption without "-caption".
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self._article = ""
        self._rows: list[list[str]] = []
        self._in_cell = False
        self._heard = ""
        self.feed(html)

    @property
    def text(self) -> str:
        """All text except that of style and script."""
        return " ".join(" ".join(self.texts.values()).split())

    def of(self, run_id: str) -> str:
        """Return the text of a run's page."""
        return " ".join(self.texts[f"run-{run_id}"].split())

    def values(self, attribute: str) -> list[str]:
        """List every value of an attribute."""
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag == "article":
            self._article = attributes["id"]
        elif tag == "table":
            self._rows = []
        elif tag == "span" and attributes.get("id", "").endswith("-caption"):
            self.tables[attributes["id"].removesuffix("-caption")] = self._rows
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
            self._in_cell = True
        elif tag in ("style", "script"):
            self._heard = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False
        if tag in ("td", "th", "dt", "dd", "p", "li", "h2", "h3"):
            self.handle_data(" ")
        if tag == "article":
            self._article = ""
        if tag == self._heard:
            self._heard = ""

    def handle_data(self, data: str) -> None:
        if self._heard:
            return
        self.texts[self._article] = self.texts.get(self._article, "") + data
        if self._in_cell:
            self._rows[-1][-1] += data
