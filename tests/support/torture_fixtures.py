"""Fault injection: few faults in every test run, many in `make torture`. Prints its counts."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

PROPERTY = "torture"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --torture, which selects the long counts."""
    parser.addoption("--torture", action="store_true", help="inject faults in the long form's numbers")


class Torture:
    """How many faults a test injects, and their report."""

    def __init__(self, *, long: bool, say: Callable[[str], None]) -> None:
        self.long = long
        self.say = say  # prints a line at the end of the test run

    def count(self, short: int, long: int) -> int:
        return long if self.long else short


@pytest.fixture
def torture(request: pytest.FixtureRequest) -> Torture:
    """How many faults to inject, and where to report them."""

    def say(line: str) -> None:
        request.node.user_properties.append((PROPERTY, line))

    return Torture(long=request.config.getoption("--torture"), say=say)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that inject faults; the long form gets a long time-out. What has no short form is left out of that."""
    if not config.getoption("--torture"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    for item in items:
        if "torture" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.torture)
            if item.config.getoption("--torture"):
                item.add_marker(pytest.mark.timeout(3 * 3600))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the counts of all workers."""
    lines = list(_said(terminalreporter))
    if lines:
        terminalreporter.section("torture")
        for line in lines:
            terminalreporter.line(line)


def _said(terminalreporter: Any) -> Iterator[str]:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            yield from (f"{outcome}: {line}" for name, line in report.user_properties if name == PROPERTY)
