"""What a pool's modules and setup lines do to a job's shell, and what is known of the one that fails."""

import os
import subprocess
from pathlib import Path

import pytest

from slurm.answers import parse_sacct
from slurm.causes import ending
from slurm.preamble import SetupFailure, preamble, read_failure
from trainer.records.attempt import Cause
from trainer.records.base import now

TASK = 'echo "task: $GREETING"'


def run(folder: Path, *, setup: list[str] | None = None, modules: list[str] | None = None, **environment: str) -> str:
    """Execute a job's script as a batch shell does; return its log, ending with the exit code."""
    script = folder / "job.sh"
    script.write_text("\n".join([*preamble(modules or [], setup or []), TASK]))
    given = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(
        ["/bin/bash", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=given, cwd=folder
    )
    return f"{done.stdout}exit code {done.returncode}\n"


def test_what_setup_lines_set_holds_for_the_task(tmp_path: Path) -> None:
    """Variables, functions, directories, limits, what a sourced file sets, several lines in one entry; exit code 0."""
    (tmp_path / "settings").write_text('greet() { GREETING="$1 it\'s $(ulimit -n)"; export GREETING; }\n')
    setup = [
        "source ./settings",
        "ulimit -n 77",
        "if true; then\n  mkdir in\n  cd in\nfi",
        "[ -d ../in ] && greet 'hello,'",
        "# nothing",
    ]
    log = run(tmp_path, setup=setup)
    assert log.endswith("sweep: setup done\ntask: hello, it's 77\nexit code 0\n")
    assert read_failure(log) is None
    assert run(tmp_path) == "task: \nexit code 0\n", "nothing is done where nothing is asked for"


FAILING = {
    "false": (["export A=1", "false"], SetupFailure("false", 1, "")),
    "missing file": (["source no/where"], SetupFailure("source no/where", 1, "job.sh: ")),
    "first of two": (["cd nowhere && echo there"], SetupFailure("cd nowhere && echo there", 1, "cd: nowhere: No such")),
    "a function of theirs": (["f() { echo 1 % of it; return 3; }", "f"], SetupFailure("f", 3, "1 % of it")),
    "ends the shell": (["echo before; exit 5"], SetupFailure("echo before; exit 5", None, "before")),
    "strict": (["set -eu", "echo a\necho b\nfalse\necho c"], SetupFailure("echo a ...", None, "a / b")),
    "quotes": (['echo "it\'s"; (exit 4)'], SetupFailure('echo "it\'s"; (exit 4)', 4, "it's")),
    "half an if": (["if true; then", "fi"], SetupFailure("if true; then", 2, "syntax error: unexpected end of file")),
    "many words": (["seq 9; false"], SetupFailure("seq 9; false", 1, "7 / 8 / 9")),
}


@pytest.mark.parametrize(("setup", "failure"), FAILING.values(), ids=FAILING.keys())
def test_the_first_setup_line_that_fails_ends_the_job(tmp_path: Path, setup: list[str], failure: SetupFailure) -> None:
    """The line, its exit code and its last words are known from the log; the task never begins."""
    log = run(tmp_path, setup=[*setup, "echo on"])
    found = read_failure(log.rpartition("exit code")[0])
    assert found is not None
    assert (found.line, found.code) == (failure.line, failure.code)
    assert failure.output in found.output
    assert "task:" not in log


def test_a_line_that_failed_is_the_reason_of_the_job_s_end() -> None:
    """Whatever code it had, and however often the job was put back before."""
    before = "sweep: setup: a\nsweep: setup done\nCUDA out of memory\n"
    log = f"{before}sweep: setup: a\nno a\nsweep: setup failed with exit code 75: a\n"
    row = "7_0|FAILED|1:0|0:0|n1|1795392336|1795392336|1795392337|None|t"
    told = ending(parse_sacct(row, ["t"], now()).tasks["t"][0], log)
    assert told == (Cause.LAUNCH_FAILED, "failed before training began, at 'a' (exit code 75): no a", False)
    killed = row.replace("|1:0|", "|0:15|")
    assert ending(parse_sacct(killed, ["t"], now()).tasks["t"][0], "sweep: setup: a\n").cause is Cause.KILLED


MODULE = (
    'module() { [ "$2" != absent ] || { echo "ERROR: Unable to locate $2"; return 1; }; export GREETING="has $2"; }\n'
)


@pytest.mark.parametrize("variable", ["MODULESHOME", "LMOD_PKG"])
def test_modules_are_loaded_where_only_login_shells_know_how(tmp_path: Path, variable: str) -> None:
    """Before the setup lines. One that cannot be loaded ends the job; so does a site that has none."""
    init = tmp_path / "init"
    init.mkdir()
    (init / "bash").write_text(MODULE)
    log = run(tmp_path, modules=["cuda/12.1"], setup=['GREETING="$GREETING, and more"'], **{variable: str(tmp_path)})
    assert "task: has cuda/12.1, and more\n" in log
    assert read_failure(run(tmp_path, modules=["a", "absent"], **{variable: str(tmp_path)})) == SetupFailure(
        "module load absent", 1, "ERROR: Unable to locate absent"
    )
