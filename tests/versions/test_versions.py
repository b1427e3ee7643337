"""`make test-slurm`, `test-python`, `test-torch`: what stops them is told in a sentence. They take minutes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, program

HERE = REPOSITORY / "tests" / "versions"


def run(*command: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository, with a folder first on PATH."""
    # Not what a make that runs these tests, as 'make test-torch VERSION=...' does, hands down to every make below it.
    handed_down = ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "VERSION")
    environment = {name: value for name, value in os.environ.items() if name not in handed_down} | {"MIRROR": "nowhere"}
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("target", ["test-slurm", "test-python", "test-torch"])
def test_a_target_without_its_version_asks_for_it(target: str) -> None:
    """Before anything is made."""
    done = run("make", target)
    assert done.returncode == 2
    assert f"which version? make {target} VERSION=" in done.stderr


def test_a_python_is_found_by_its_version_or_missed_in_a_sentence() -> None:
    """The one that runs this is here; none was ever 3.1 and 3.10 is not it."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    done = run(HERE / "python.sh", version)
    found = subprocess.run([done.stdout.strip(), "--version"], capture_output=True, text=True, timeout=30)
    assert found.stdout.startswith(f"Python {version}.")
    done = run(HERE / "python.sh", "3.1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no Python 3.1 here")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone may")
def test_a_machine_that_permits_no_tree_is_told_from_one_that_does() -> None:
    """By trying, without a trace: CI leaves the tests in a tree out for this reason alone."""
    allowed = run(HERE / "debian.sh", "--permitted")
    if allowed.returncode == 0:
        assert allowed.stdout + allowed.stderr == ""
    without = [program("setpriv", "util-linux"), "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    refused = run(*without, HERE / "debian.sh", "--permitted")
    assert refused.returncode != 0
    assert "Operation not permitted" in refused.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="it asks for root first")
def test_a_debian_that_cannot_be_made_says_why_and_leaves_no_half_of_it(tmp_path: Path) -> None:
    """The last words of debootstrap, where the rest is, and a next call that tries again."""
    fake = tmp_path / "bin" / "debootstrap"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'E: No such release'\nexit 1\n")
    fake.chmod(0o755)
    for _ in range(2):
        done = run(HERE / "debian.sh", "buzz", tmp_path, sys.executable, "true", path=fake.parent)
        assert done.returncode == 1
        assert "could not make Debian buzz: E: No such release" in done.stderr
        assert str(tmp_path / "buzz.log") in done.stderr
        assert not (tmp_path / "buzz").exists()
    done = run(HERE / "debian.sh", "../etc", tmp_path, sys.executable, "true")
    assert "'../etc' is no name of a Debian" in done.stderr
