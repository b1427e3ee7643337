"""The user's own modules that a sweep's runs import: where they lie, and whether they have what the sweep names.

Nothing is imported here: files are looked for, and read as syntax.
"""

import ast
import importlib.util
from collections.abc import Collection
from pathlib import Path

from sweep.config.explain import quoted
from sweep.config.grid import place_of
from sweep.config.schema import Sweep
from sweep.config.yaml_file import Location, YamlFile, read_yaml
from sweep.words import nearest
from trainer.models.catalog import is_reference

OURS = ("sweep", "slurm", "trainer", "analysis", "__main__")
MARKS = (".git", "pyproject.toml")


def project_of(file: Path) -> Path:
    """The project that a sweep file belongs to: the nearest folder upwards with .git or pyproject.toml, else its own.

    Absolute; a symlink on the way is kept.
    """
    own = file.absolute().parent
    return next((folder for folder in (own, *own.parents) if any((folder / mark).exists() for mark in MARKS)), own)


def own_code(sweep: Sweep) -> tuple[Path, ...]:
    """The files and folders of the project that jobs must be able to import: each a module or package by its name.

    They are those in the sweep file's `code`, and the ones that its architectures are functions of. Modules that are
    installed are none of them. Raises InputError for what is not there, or cannot be read as Python: to look at a sweep
    none of it is needed, so this is asked before runs are planned or sent.
    """
    architectures = dict.fromkeys(placed.spec.run.architecture for placed in sweep.runs)
    if not sweep.code and not any(map(is_reference, architectures)):
        return ()
    source, project = read_yaml(sweep.file), project_of(sweep.file)
    found: dict[str, Path] = {}
    for index, name in enumerate(sweep.code):
        at: Location = ("code", index)
        if name in OURS or not name.isidentifier():
            raise source.error(at, f"'code' holds {quoted(name)}: expected a module or package of yours by its name")
        place = _place(project, name)
        if place is None:
            raise source.error(at, f"'code' holds '{name}': no {name}.py and no folder of that name in {project}")
        found[name] = place
    for architecture in architectures:
        if is_reference(architecture):
            at = place_of(source, "architecture", architecture)
            place = _own_module(source, at, architecture, project, elsewhere=_runs_elsewhere(sweep))
            if place is not None:
                found[place.stem] = place
    return tuple(found[name] for name in sorted(found))


def _place(project: Path, name: str) -> Path | None:
    """The file or folder of a top module, in the project or in its `src`."""
    return _module_in(project, name) or _module_in(project / "src", name)


def _module_in(folder: Path, name: str) -> Path | None:
    """The file or folder of a module, as Python chooses: a folder without `__init__.py` comes last."""
    package, module = folder / name, folder / f"{name}.py"
    if module.is_file() and not (package / "__init__.py").is_file():
        return module
    return package if package.is_dir() else None


def is_installed(module: str) -> bool:
    """Whether Python finds a top module here."""
    return importlib.util.find_spec(module) is not None


def _runs_elsewhere(sweep: Sweep) -> bool:
    """Whether jobs run in containers, where other modules are installed than here."""
    return sweep.cluster is not None and any(pool.container for pool in sweep.cluster.pools.values())


def _own_module(source: YamlFile, at: Location, architecture: str, project: Path, *, elsewhere: bool) -> Path | None:
    """Where a reference's top module lies in the project; None for one that is installed, be it elsewhere."""
    module, _, function = architecture.partition(":")
    shown = f"'grid.architecture' holds '{architecture}'"
    top, *rest = module.split(".")
    if top in OURS:
        raise source.error(at, f"{shown}: '{top}' is part of this program; a module of yours needs another name")
    place = None if top == "torchvision" else _place(project, top)
    if place is None:
        if not elsewhere and not is_installed(top):
            raise source.error(at, f"{shown}: no module '{top}' in {project}, and none is installed")
        return None
    file = place
    for part in rest:
        inner = _module_in(file, part)
        if inner is None:
            raise source.error(at, f"{shown}: there is no {file / part}.py")
        file = inner
    if file.is_dir():
        file /= "__init__.py"
        if not file.is_file():
            raise source.error(at, f"{shown}: there is no {file}")
    names = _names(source, at, shown, file)
    if names is not None and function not in names:
        raise source.error(at, f"{shown}: {file} has no '{function}'{nearest(function, names)}")
    return place


def _names(source: YamlFile, at: Location, shown: str, file: Path) -> Collection[str] | None:
    """The names that a module defines at its top; None where it may have others: a star, a condition, __getattr__."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (OSError, SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        words = error.msg if isinstance(error, SyntaxError) else error
        raise source.error(at, f"{shown}: {file}{line} cannot be read as Python: {words}") from error
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Expr():
                pass
            case _:
                return None
    return None if names & {"*", "__getattr__"} else names
