"""The layout's promises: who may import whom, and that looking at a sweep costs no torch."""

import ast
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGES = ("sweep", "slurm", "trainer", "analysis", "benchmarks")
# What the planner and the reports may know of the trainer: its records and what goes with them, none of it torch.
RECORDS = ("trainer.records",)
CATALOGS = ("trainer.data.catalog", "trainer.models.catalog", "trainer.models.measured")
PREPARATION = (
    "trainer.data.prepared",
    "trainer.data.prepare",
    "trainer.data.synthesize",
    "trainer.data.subset",
)
ALLOWED = {
    "trainer": ("trainer",),
    "slurm": ("slurm", *RECORDS),
    "analysis": ("analysis", *RECORDS, *CATALOGS),
    "sweep": ("sweep", "slurm", "analysis", *RECORDS, *CATALOGS, *PREPARATION),
    "benchmarks": (
        "benchmarks",
        "sweep.config",
        "sweep.plan.cost",
        "sweep.errors",
        "slurm.devices",
        "slurm.mps",
        "trainer",
    ),
}
# Inside a package rooms lie on floors, ground first: a file imports from its own room and from lower floors.
FLOORS = {
    "trainer": (
        {"stop"},
        {"records"},
        {"data", "models"},
        {"loop"},
        {"checkpoint", "distributed"},
        {"run"},
        {"__main__"},
    ),
    "slurm": (
        {"timeouts", "preamble", "devices"},
        {"commands"},
        {"jobs", "code", "pools", "bundles", "cores", "machine", "mps", "probe", "workers", "interrupts"},
        {"origin", "container", "room", "rivals"},
        {"acceptance", "answers", "causes", "limits", "executor"},
        {"queue", "submission", "fit", "local", "task"},
        {"view"},
        {"scheduler"},
        {"private_cluster"},
    ),
    "analysis": (
        {"errors", "folder", "formats", "chapter", "spread"},
        {"load", "scaling"},
        {"study"},
        {"missing", "mixed", "resumed"},
        {"tables"},
        {"figures"},
        {"comparison"},
        {"report", "export"},
    ),
    "sweep": (
        {"errors", "words"},
        {"config"},
        {"status"},
        {"plan"},
        {"submit"},
        {"upkeep", "doctor", "results", "logs", "show"},
        {"init"},
        {"cli"},
        {"__main__"},
    ),
}


# What one kind of export imports; the others need none of it.
OF_EXPORTS = {"pyarrow", "tensorboard", "google", "wandb", "mlflow"}


def imports(path: Path) -> list[str]:
    """List the modules a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found += [f"{module}.{alias.name}" for alias in node.names] if module in PACKAGES else [module]
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


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_of_a_package_lie_on_floors(package: str) -> None:
    """Each room imports only from lower floors, so that a reader who goes from one to the next never turns back."""
    floor = {room: number for number, rooms in enumerate(FLOORS[package]) for room in rooms}
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        if path.parent.name == package and path.stem == "__init__":
            continue
        room = path.relative_to(REPOSITORY / package).parts[0].removesuffix(".py")
        for name in imports(path):
            there = name.split(".")
            if there[0] == package and len(there) > 1 and there[1] != room:
                assert floor[there[1]] < floor[room], f"{path.relative_to(REPOSITORY)} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    """Not even inside functions."""
    root = REPOSITORY / package
    modules = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path for path in root.rglob("*.py")}
    left = {module: {name for name in imports(path) if name in modules} for module, path in modules.items()}
    while left:
        ground = {module for module, below in left.items() if not below & left.keys()}
        assert ground, f"in circles: {sorted(left)}"
        left = {module: below for module, below in left.items() if module not in ground}


@pytest.mark.parametrize("package", ["sweep", "slurm", "trainer", "analysis"])
def test_running_imports_only_what_a_user_installs(package: str) -> None:
    """Everything is the standard library's, ours or in requirements.txt; what exports and tests need is not there."""
    users = set(re.findall(r"^([a-z0-9-]+)==", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE))
    assert "torch" in users
    assert not users & {"mlflow-skinny", "mypy", "playwright", "pyarrow", "pytest", "tensorboard", "wandb"}
    theirs = set()
    for user in users:
        try:
            theirs |= {file.parts[0].removesuffix(".py") for file in files(user) or ()}
        except PackageNotFoundError:  # for another system or Python
            theirs.add(user.replace("-", "_"))
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        known = {*sys.stdlib_module_names, *PACKAGES, *(OF_EXPORTS if path.parent.name == "export" else ())}
        for name in {name.split(".")[0] for name in imports(path)} - known:
            assert name in theirs, f"{path.relative_to(REPOSITORY)} imports {name}"


@pytest.mark.parametrize(
    "module",
    [
        *(*CATALOGS, *PREPARATION, "trainer.records.claim", "trainer.records.checkpoint_file"),
        *("sweep.cli.app", "sweep.results", "trainer.__main__"),
        *("analysis.tables", "analysis.figures", "analysis.comparison.files", "analysis.report", "analysis.export"),
        *("benchmarks.__main__", "benchmarks.report", "benchmarks.plot"),
    ],
)
@pytest.mark.slow
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
@pytest.mark.slow
def test_a_look_at_a_sweep_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    """The commands themselves, run in a process, over the whole study."""
    more = [] if arguments == ["--help"] else [str(REPOSITORY / "configs" / "thesis.yaml"), "--output", str(tmp_path)]
    call = ["sweep", *arguments, *more]
    _assert_without_torch(
        f"import sys; sys.argv = {call!r}\nfrom sweep.cli.app import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code"
    )


def test_the_planner_loads_no_numpy() -> None:
    """Nor what else is slow to import and only some commands need."""
    code = "import sweep.cli.app, sys\nfor heavy in ('numpy', 'pandas', 'analysis'):"
    code += " assert heavy not in sys.modules, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=REPOSITORY)


def _assert_without_torch(code: str) -> None:
    check = "\nimport sys\nfor heavy in ('torch', 'sklearn', 'submitit'): assert heavy not in sys.modules, heavy"
    subprocess.run([sys.executable, "-c", code + check], check=True, capture_output=True, timeout=60, cwd=REPOSITORY)


@pytest.mark.slow
def test_a_trainer_loads_only_what_trains() -> None:
    """torch, and neither its compiler nor libraries that take as long to import: many runs last seconds."""
    code = "import trainer.run.attempt, sys\nfor heavy in ('torchvision', 'sklearn', 'scipy', 'torch._dynamo'):"
    code += " assert heavy not in sys.modules, heavy"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=REPOSITORY)
