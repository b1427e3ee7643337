"""Draw progress: bars on a terminal, a line now and then in a pipe."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.cli.tables import LOOKS, _accuracy
from sweep.plan.rows import PlanRow
from sweep.status.state import RunStatus, State
from sweep.words import hours, last_line

LINE_S = 30.0  # how often progress is said where it cannot be drawn


class SubmitProgress:
    """Draws a submission while it runs: a bar with the time left, and the runs in work."""

    def __init__(self, console: Console, rows: Sequence[PlanRow]) -> None:
        self.console = console
        self.estimates = {row.id: row.estimate_s for row in rows}
        self.started = time.monotonic()
        self.at_start: float | None = None
        self.said_at = -LINE_S
        self.finished: set[str] = set()
        self.live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> "SubmitProgress":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, line: str) -> None:
        """Print a line above the drawing."""
        self.console.print(line, highlight=False)

    def show(self, statuses: Sequence[RunStatus]) -> None:
        """Bring the drawing up to date."""
        mine = [status for status in statuses if status.id in self.estimates]
        ended = [status for status in mine if status.state in (State.DONE, State.FAILED, State.CANCELLED)]
        done = sum(self.estimates[status.id] * status.epoch / status.epochs for status in mine if status not in ended)
        done += sum(self.estimates[status.id] for status in ended)
        if self.at_start is None:
            self.at_start = done
        for status in ended:
            if status.id not in self.finished:
                self.finished.add(status.id)
                self._say_ended(status)
        summary = f"{len(ended)} of {len(mine)} runs ended · {self._time_left(done)}"
        if self.live:
            bar = ProgressBar(total=sum(self.estimates.values()), completed=done, width=40)
            running = [status for status in mine if status.state is State.RUNNING]
            lines = [Text(f"  ▶ {status.id}  epoch {status.epoch}/{status.epochs}", "cyan") for status in running]
            head = Table.grid(padding=(0, 1))
            head.add_row(bar, summary)
            self.live.update(Group(head, *lines))
        elif time.monotonic() - self.said_at >= LINE_S:
            self.said_at = time.monotonic()
            self.say(summary)

    def _say_ended(self, status: RunStatus) -> None:
        sign, style = LOOKS[status.state]
        words = f"best val accuracy {_accuracy(status)}"
        if status.state is State.FAILED:
            words = f"{status.cause.value if status.cause else 'failed'}: {last_line(status.message)}"
        self.console.print(Text(f"{sign} {status.id}  {words}", style))

    def _time_left(self, done: float) -> str:
        since = done - (self.at_start or 0.0)
        if since <= 0:
            return "time left unknown yet"
        rate = since / (time.monotonic() - self.started)
        return f"about {hours((sum(self.estimates.values()) - done) / rate)} left"


def bar(console: Console) -> Callable[[str, int, int], None]:
    """Make a function that draws (stage, done, total) as a bar; where there is no terminal it names each stage."""
    state: dict[str, object] = {}

    def report(stage: str, done: int, total: int) -> None:
        if not console.is_terminal:
            if state.get("stage") != stage:
                state["stage"] = stage
                console.print(stage, highlight=False)
            return
        width = 30
        filled = width * done // max(total, 1)
        console.print(f"\r{stage} {'━' * filled}{' ' * (width - filled)} {done:,}/{total:,}", end="", highlight=False)
        if done >= total:
            console.print()

    return report
