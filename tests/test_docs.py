"""What the documents say exists, and what exists is in the documents."""

import re
from collections.abc import Iterator

import pytest
import typer.main
from conftest import REPOSITORY, Command

from sweep.cli.app import app
from sweep.status.state import State
from trainer.records.recipe import Recipe

COMMANDS = (REPOSITORY / "docs" / "commands.md").read_text()
README = (REPOSITORY / "README.md").read_text()


def commands() -> Iterator[tuple[str, list[str]]]:
    """Return every command as typed, with its long options."""

    def walk(group: object, words: str) -> Iterator[tuple[str, list[str]]]:
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                yield from walk(command, f"{words} {name}")
            else:
                yield f"{words} {name}", [max(option.opts, key=len) for option in command.params if option.opts]

    yield from walk(typer.main.get_command(app), "sweep")


def test_every_command_has_help_and_a_line_in_the_docs() -> None:
    """A command nobody can find is not there."""
    found = dict(commands())
    assert len(found) >= 11
    root = typer.main.get_command(app)
    for words, options in found.items():
        command = root
        for word in words.split()[1:]:
            command = command.commands[word]  # type: ignore[attr-defined]
        assert command.help, words
        line = next((line for line in COMMANDS.splitlines() if line.startswith(f"| `{words} ")), None)
        assert line, f"docs/commands.md does not mention '{words}'"
        for option in options:
            if option.startswith("--") and option not in ("--output", "--data", "--wait"):
                assert option in line, f"docs/commands.md does not mention '{option}' of '{words}'"


def test_every_state_and_recipe_field_is_documented() -> None:
    """The words of the program are the words of its documents."""
    for state in State:
        assert f"| {state.value} |" in COMMANDS
    fields = (REPOSITORY / "docs" / "sweep-file.md").read_text()
    for name in Recipe.model_fields:
        assert f"`{name}`" in fields


def test_every_path_and_target_the_readme_names_exists() -> None:
    """Links lead somewhere and make knows what it is told."""
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (REPOSITORY / link).exists(), link
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)`?", README + (REPOSITORY / "CONTRIBUTING.md").read_text()):
        assert re.search(rf"^([a-z -]+ )?{target}( [a-z -]+)?:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("arguments", [(), ("--help",), ("plan", "--help"), ("data", "prepare", "--help")])
def test_help_is_given(sweep: Command, arguments: tuple[str, ...]) -> None:
    """Also to someone who types nothing but the name."""
    answer = sweep(*arguments, expect=0 if arguments else 2)
    assert "Usage" in answer.stdout + answer.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/nothing-lost.md"])
def test_the_promise_stands_in_its_words(page: str) -> None:
    """What the fault injection holds the trainer to is what is promised."""
    promise = (
        "*a run may be killed at any instant, any number of times, on any node; it ends with exactly the history it "
        "would have had, loses at most one epoch of work (or 30 seconds where epochs are shorter), and no file it "
        "leaves is ever mistaken for a good one"
    )
    text = " ".join((REPOSITORY / page).read_text().split())
    assert promise.lower() in text.lower()


def test_every_step_of_the_way_exists() -> None:
    """CONTRIBUTING.md names a file and what to look for in it; both are there."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    steps = re.findall(r"`([\w/]+\.py)`:\s+`(\w+)`", text)
    assert len(steps) >= 24
    for path, name in steps:
        source = (REPOSITORY / path).read_text()
        assert re.search(rf"^(def|class) {name}\b", source, re.MULTILINE), f"{path} has no {name}"
    for path in re.findall(r"`([\w/]+\.py)`", text):
        assert (REPOSITORY / path).is_file(), path
