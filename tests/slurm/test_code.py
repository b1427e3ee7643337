"""Code frozen for a submission's jobs: named by its content, stored whole or not at all, and run before all else."""

import py_compile
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from clone_fixtures import Clone

from slurm.code import FrozenCode, damage, freeze, misread, snapshot, store
from slurm.jobs import ArrayRecord, Resources, Submission
from trainer.records.base import now
from trainer.records.code import Code, git_state, module_command
from trainer.records.run import Bundle, Options


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Two small packages under the names of ours."""
    folder = tmp_path / "a clone"
    for package in ("slurm", "trainer/records"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("")
    (folder / "trainer" / "__init__.py").write_text("")
    (folder / "trainer" / "hello.py").write_text("import sys, slurm\nprint(__name__, slurm.__file__, sys.argv[1:])\n")
    return folder


def name(folder: Path) -> str:
    return freeze(folder).record.snapshot


def test_the_same_content_has_the_same_name_and_any_edit_another(packages: Path) -> None:
    """Of what is beside the code, compiled files, an editor's lock, data, nothing counts."""
    before = name(packages)
    (packages / "trainer" / "__pycache__").mkdir()
    (packages / "trainer" / "__pycache__" / "hello.cpython-313.pyc").write_bytes(b"compiled")
    (packages / "trainer" / ".#hello.py").symlink_to("user@host.123")
    (packages / "slurm" / "notes.txt").write_text("mine")
    assert name(packages) == before
    (packages / "trainer" / "hello.py").write_text("print('other')\n")
    edited = name(packages)
    (packages / "trainer" / "hello.py").rename(packages / "trainer" / "there.py")
    moved = name(packages)
    (packages / "slurm" / "more.py").write_text("")
    assert len({before, edited, moved, name(packages)}) == 4


def test_a_copy_that_is_there_is_used_again(packages: Path, tmp_path: Path) -> None:
    """Nothing of it is written a second time."""
    frozen = freeze(packages)
    store(frozen, tmp_path)
    place = snapshot(tmp_path, frozen.record)
    written = {path: path.stat().st_ino for path in place.rglob("*.py")}
    store(freeze(packages), tmp_path)
    assert {path: path.stat().st_ino for path in place.rglob("*.py")} == written
    assert list(place.parent.iterdir()) == [place]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a file is missing": lambda place: (place / "trainer" / "hello.py").unlink(),
    "a file is cut": lambda place: (place / "trainer" / "hello.py").write_text("import"),
    "a file is new": lambda place: (place / "trainer" / "json.py").write_text(""),
    "all is missing": lambda place: [path.unlink() for path in place.rglob("*.py")],
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_copy_is_noticed_and_made_anew(how: str, packages: Path, tmp_path: Path) -> None:
    """By its own name; what jobs compiled beside its files is no damage."""
    frozen = freeze(packages)
    store(frozen, tmp_path)
    place = snapshot(tmp_path, frozen.record)
    (place / "trainer" / "__pycache__").mkdir()
    (place / "trainer" / "__pycache__" / "hello.cpython-313.pyc").write_bytes(b"compiled")
    assert damage(place) is None
    DAMAGES[how](place)
    assert damage(place) == "is not as it was stored"
    store(frozen, tmp_path)
    assert damage(place) is None
    assert list(place.parent.iterdir()) == [place]


def test_many_who_store_the_same_code_at_once_leave_one_whole_copy(packages: Path, tmp_path: Path) -> None:
    """Nobody fails, whether the place was free or held a damaged copy, and nothing is left beside it."""
    frozen = freeze(packages)
    place = snapshot(tmp_path, frozen.record)
    for damaged in (False, True):
        if damaged:
            (place / "trainer" / "hello.py").unlink()
        together = threading.Barrier(8)
        failed: list[OSError] = []

        def work(together: threading.Barrier = together, failed: list[OSError] = failed) -> None:
            together.wait()
            try:
                store(frozen, tmp_path)
            except OSError as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert damage(place) is None
        assert list(place.parent.iterdir()) == [place]


def test_a_disk_that_fails_leaves_nothing_under_the_name(packages: Path, tmp_path: Path) -> None:
    """A file stands where the folder of copies would be."""
    (tmp_path / "code").write_text("")
    with pytest.raises(OSError, match="code"):
        store(freeze(packages), tmp_path)
    assert (tmp_path / "code").read_text() == ""


def test_a_frozen_module_runs_whatever_lies_in_the_current_folder(packages: Path, tmp_path: Path) -> None:
    """The clone that a job starts in comes later on the import path, and so does PYTHONPATH."""
    frozen = freeze(packages)
    store(frozen, tmp_path)
    place = snapshot(tmp_path, frozen.record)
    for path in ("trainer/hello.py", "trainer/__init__.py", "slurm/__init__.py"):
        (packages / path).write_text("raise SystemExit('edited')\n")
    command = [*module_command("trainer.hello", place), "--task", "1"]
    environment = {"PYTHONPATH": str(packages)}
    ran = subprocess.run(command, cwd=packages, env=environment, capture_output=True, text=True, timeout=30)
    assert ran.stdout == f"__main__ {place / 'slurm' / '__init__.py'} ['--task', '1']\n", ran.stderr


def test_a_users_own_modules_are_frozen_beside_ours(packages: Path, tmp_path: Path) -> None:
    """A package and a single module, each importable by its name, whatever becomes of them where they lay."""
    project = tmp_path / "a project" / "src"
    (project / "mylab" / "models").mkdir(parents=True)
    (project / "mylab" / "models" / "net.py").write_text("import nets\nprint(nets.NAME)\n")
    (project / "mylab" / "notes.txt").write_text("mine")
    (project / "nets.py").write_text("NAME = 'as it was'\n")
    frozen = freeze(packages, [project / "mylab", project / "nets.py"])
    assert {"mylab/models/net.py", "nets.py"} == {name for name in frozen.files if name.startswith(("mylab", "nets"))}
    assert frozen.record.snapshot != name(packages)
    assert frozen.record.own
    assert freeze(packages).record.own is None
    store(frozen, tmp_path)
    place = snapshot(tmp_path, frozen.record)
    (project / "nets.py").write_text("NAME = 'edited'\n")
    command = module_command("mylab.models.net", place)
    ran = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=30)
    assert ran.stdout == "as it was\n", ran.stderr


def test_what_python_has_compiled_is_kept_and_good_for_the_stored_files(packages: Path, tmp_path: Path) -> None:
    """A first job compiles nothing anew; what was compiled from other contents is not taken for these."""
    for path in (packages / "trainer").rglob("*.py"):
        py_compile.compile(str(path))
    (packages / "trainer" / "hello.py").write_text(
        "print('newer, and longer than the file it was compiled from')\n" * 9
    )
    frozen = freeze(packages)
    store(frozen, tmp_path)
    place = snapshot(tmp_path, frozen.record)
    assert damage(place) is None
    command = [sys.executable, "-v", str(place), "trainer.hello"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert ran.stdout.startswith("newer")
    told = [line for line in ran.stderr.splitlines() if line.startswith("# ") and f"{place}/trainer" in line]
    assert any("matches" in line and "trainer/__init__.py" in line for line in told), told


def test_code_is_of_the_checkout_that_has_it_and_of_no_other(tmp_path: Path) -> None:
    """An installed copy in another project's environment is none of that project's commits."""
    clone = Clone(tmp_path / "clone", ("slurm",))
    clone.edit("slurm/code.py", "\n")
    commit = clone.commit()
    assert git_state(clone.path / "slurm") == (commit, False)
    clone.edit("slurm/code.py", "\n")
    assert git_state(clone.path / "slurm") == (commit, True)
    installed = clone.path / ".venv" / "slurm"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert git_state(installed) == (None, None)
    assert git_state(tmp_path) == (None, None)


def test_a_submission_tells_the_code_of_each_run(tmp_path: Path) -> None:
    """By the array that carries it; one of an earlier version tells none."""
    arrays = [ArrayRecord(tag=f"t{n}", pool="p", resources=Resources(partition="p"), tasks=[[f"r{n}"]]) for n in (0, 1)]
    codes = [Code(snapshot="0" * 16), Code(snapshot="1" * 16)]
    sent = Submission(token="a", created=now(), executor="slurm", runs=["r0", "r1"], arrays=arrays, codes=codes)  # noqa: S106
    assert [sent.code_of(run) for run in ("r0", "r1", "r2")] == [*codes, None]
    here = sent.model_copy(update={"executor": "local", "arrays": [], "codes": codes[:1]})
    assert here.code_of("r1") == codes[0]
    earlier = sent.model_dump(mode="json", exclude={"codes"})
    assert Submission.model_validate(earlier).code_of("r0") is None


def test_code_that_does_not_know_what_jobs_are_told_today_says_so(tmp_path: Path) -> None:
    """A copy of an earlier version lacks a field of the bundle; today's reads it all."""
    today = freeze()
    run_py = today.files["trainer/records/run.py"]
    files = {**today.files, "trainer/records/run.py": run_py.replace(b"    mps: bool = False\n", b"")}
    assert files != today.files
    bundle = Bundle(submission="a", pool="p", data=tmp_path, runs_folder=tmp_path, options=Options(), tasks=[[]])
    said = []
    for name, content in (("today", today.files), ("earlier", files)):
        store(FrozenCode(Code(snapshot=name), content), tmp_path / name)
        said.append(misread(snapshot(tmp_path / name, Code(snapshot=name)), bundle))
    assert said == [None, "mps: Extra inputs are not permitted"]
