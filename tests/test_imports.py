"""The layout's promises: who may import whom, and that looking at a sweep costs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGES = ("sweep", "slurm", "trainer", "analysis", "benchmarks")
# What the planner and the reports may know of the trainer: its records and what goes with them, none of it torch.
RECORDS = ("trainer.records", "trainer.recipe", "trainer.files", "trainer.processes")
CATALOGS = ("trainer.data.catalog", "trainer.models.catalog")
PREPARATION = (
    "trainer.data.prepared",
    "trainer.data.prepare",
    "trainer.data.synthesize",
    "trainer.data.subset",
    "trainer.claim",
    "trainer.checkpoint_file",
)
ALLOWED = {
    "trainer": ("trainer",),
    "slurm": ("slurm", *RECORDS, "trainer.claim", "trainer.checkpoint_file"),
    "analysis": ("analysis", *RECORDS, *CATALOGS),
    "sweep": ("sweep", "slurm", "analysis", *RECORDS, *CATALOGS, *PREPARATION),
    "benchmarks": ("benchmarks", "sweep.config", "sweep.cost", "sweep.errors", "slurm.mps", "trainer"),
}


def imports(path: Path) -> list[str]:
    """List the modules a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    """A package imports only what the layout lets it; the trainer stands alone."""
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            if name.split(".")[0] not in PACKAGES:
                continue
            assert any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED[package]), (
                f"{path.relative_to(REPOSITORY)} imports {name}"
            )


@pytest.mark.parametrize(
    "module",
    [
        *(*RECORDS, *CATALOGS, *PREPARATION, "sweep.cli", "sweep.results", "trainer.__main__"),
        *("analysis.tables", "analysis.figures", "analysis.comparison.files", "analysis.report", "analysis.export"),
        *("benchmarks.__main__", "benchmarks.report", "benchmarks.plot"),
    ],
)
def test_what_plans_and_reports_loads_no_torch(module: str) -> None:
    """Not even indirectly: torch takes longer to import than a status takes to show."""
    _assert_without_torch(f"import {module}")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["plan", "--json"], ["status"], ["status", "--json"], ["status", "--failed"]),
        *(["verify"], ["clean"], ["tables"]),
    ],
)
def test_a_look_at_a_sweep_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    """The commands themselves, run in a process, over the whole study."""
    more = [] if arguments == ["--help"] else [str(REPOSITORY / "configs" / "thesis.yaml"), "--output", str(tmp_path)]
    call = ["sweep", *arguments, *more]
    _assert_without_torch(
        f"import sys; sys.argv = {call!r}\nfrom sweep.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code"
    )


def test_the_planner_loads_no_numpy() -> None:
    """Nor what else is slow to import and only some commands need."""
    code = "import sweep.cli, sys\nfor heavy in ('numpy', 'pandas', 'analysis'): assert heavy not in sys.modules, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=REPOSITORY)


def _assert_without_torch(code: str) -> None:
    check = "\nimport sys\nfor heavy in ('torch', 'sklearn', 'submitit'): assert heavy not in sys.modules, heavy"
    subprocess.run([sys.executable, "-c", code + check], check=True, capture_output=True, timeout=60, cwd=REPOSITORY)


@pytest.mark.slow
def test_a_trainer_loads_only_what_trains() -> None:
    """torch, and neither its compiler nor libraries that take as long to import: many runs last seconds."""
    code = "import trainer.attempt, sys\nfor heavy in ('torchvision', 'sklearn', 'scipy', 'torch._dynamo'):"
    code += " assert heavy not in sys.modules, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=REPOSITORY)
