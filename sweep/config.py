"""From a YAML file to a validated sweep. Every error a sweep file can have is raised here, with file and line."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from slurm.pools import LOCAL, ClusterFile, Pool, Rule, Strict, candidate_pools, spread
from sweep.cost import estimate_s
from sweep.errors import InputError
from sweep.grid import AXES, Cell, expand
from sweep.yaml_file import Location, YamlFile, read_yaml
from trainer.data.catalog import DATASETS
from trainer.data.prepared import DataError, read_manifest
from trainer.data.subset import subset_problem, subset_size
from trainer.models.catalog import ARCHITECTURES
from trainer.records.recipe import Recipe, replica_problem, sharing_problem
from trainer.records.run import KeepCheckpoints

CLUSTERS = Path(__file__).parent.parent / "slurm" / "clusters"
MAX_SEED = 2**32 - 1  # scikit-learn's random_state goes no further


class ClusterSection(Strict):
    """`cluster:` of a sweep file: which cluster, which runs go to which of its pools, and how they share jobs."""

    file: str
    assign: list[Rule]
    runs_per_gpu: Annotated[int, Field(strict=True, ge=1)] = 1
    max_parallel: Annotated[int, Field(strict=True, ge=1)] | None = None
    job_target_min: Annotated[float, Field(strict=True, ge=0)] = 30.0


class ExecutionSection(Strict):
    """`execution:` of a sweep file: how runs execute. Changes no result beyond rounding; workers counts here only.

    gpus_per_run: processes that share a run's replicas, each with a GPU of its own; on a CPU just processes.
    """

    workers: Annotated[int, Field(strict=True, ge=1)] | Literal["auto"] = "auto"
    gpus_per_run: Annotated[int, Field(strict=True, ge=1)] = 1
    device: str = "auto"
    checkpoint_interval_s: Annotated[float, Field(strict=True, ge=0)] = 30.0
    keep_checkpoints: KeepCheckpoints = "none"


class SweepSection(Strict):
    """The whole file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    grid: dict[str, Any]
    training: Recipe = Recipe()
    cluster: ClusterSection | None = None
    execution: ExecutionSection = ExecutionSection()
    output: str = "runs"
    data: str = "data"


class PlacedRun(NamedTuple):
    """A cell of the grid, the pool it goes to, and how many images it trains and evaluates on."""

    cell: Cell
    pool: str
    device: str
    train_samples: int
    val_samples: int
    image_size: int


class Cluster(NamedTuple):
    """Where a sweep's runs go on Slurm: the pools of the cluster file, and how the sweep file wants them used."""

    file: Path
    pools: dict[str, Pool]
    section: ClusterSection


class Sweep(NamedTuple):
    """A sweep file that has passed every check. fingerprints: of the datasets that are prepared, by name."""

    file: Path
    name: str
    runs: list[PlacedRun]
    cluster: Cluster | None
    execution: ExecutionSection
    folder: Path
    data: Path
    fingerprints: dict[str, str]


def sharing(sweep: Sweep, cluster: Cluster) -> dict[str, int]:
    """Give how many runs share a job and how many GPUs a run has, as slurm's functions take them."""
    return {"workers": cluster.section.runs_per_gpu, "gpus": sweep.execution.gpus_per_run}


def load_sweep(
    file: Path, *, output: Path | None = None, data: Path | None = None, cluster: str | None = None
) -> Sweep:
    """Read and check a sweep file; output and data override the file's folders, cluster its cluster file.

    Raises InputError: one sentence with file, line, what was expected and the nearest valid name.
    """
    source = read_yaml(file)
    section = _validate(source, SweepSection)
    grid = _check_grid(source, section.grid)
    cells = _expand(source, grid, section.training)
    _check_gpus(source, section, cells)
    target = _load_cluster(source, section.cluster, cluster)
    data = data or Path(section.data)
    facts = {name: _facts(name, data) for name in grid["dataset"]}
    pools = _choose_pools(source, target, facts, cells)
    runs = [
        _place(source, section, target, pool, facts[cell.axes["dataset"]], cell)
        for cell, pool in zip(cells, pools, strict=True)
    ]
    if section.cluster:
        _check_rules_used(source, section.cluster, cells)
    return Sweep(
        file=file,
        name=section.name,
        runs=runs,
        cluster=target,
        execution=section.execution,
        folder=(output or Path(section.output)) / section.name,
        data=data,
        fingerprints={name: fact.fingerprint for name, fact in facts.items() if fact.fingerprint},
    )


class _Facts(NamedTuple):
    """A dataset's sizes: of what is prepared in the data folder, the official ones before that."""

    classes: int
    image_size: int
    train_samples: int
    val_samples: int
    fingerprint: str | None


def _facts(name: str, data: Path) -> _Facts:
    try:
        manifest = read_manifest(data, name)
    except DataError as error:
        raise InputError(str(error)) from error
    if manifest is None:
        official = DATASETS[name]
        return _Facts(official.classes, official.image_size, official.train_samples, official.val_samples, None)
    return _Facts(
        len(manifest.classes),
        manifest.image_size,
        manifest.train_samples,
        manifest.val_samples,
        manifest.fingerprint,
    )


def _validate(source: YamlFile, schema: type[Any]) -> Any:
    """Check a file against its schema and give the object. Raises InputError for the first thing wrong."""
    if not isinstance(source.data, dict):
        found = "nothing" if source.data is None else type(source.data).__name__
        raise source.error((), f"expected keys and values such as 'name: thesis', got {found}")
    try:
        return schema.model_validate(source.data)
    except ValidationError as error:
        raise _explain(source, schema, error) from error


def _explain(source: YamlFile, schema: type[Any], error: ValidationError) -> InputError:
    """Put pydantic's first finding into a sentence; a misspelt key before the one that is missing because of it."""
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    location: Location = ()
    for part in first["loc"]:
        # Inside a union pydantic also names the alternative it tried, which is no key of the file.
        if (*location, part) in source.lines or first["type"] == "missing":
            location = (*location, part)
    key = str(location[-1]) if location else ""
    within = ".".join(str(part) for part in location[:-1]) or "the file"
    if first["type"] == "extra_forbidden":
        known = _keys_at(schema, location[:-1])
        return source.error(location, f"unknown key '{key}' in '{within}'{nearest(key, known)}")
    if first["type"] == "missing":
        return source.error(location[:-1], f"'{key}' is missing in '{within}'")
    shown = ".".join(str(part) for part in location) or "the file"
    message = str(first["msg"]).removeprefix("Value error, ")
    given = first["input"]
    if isinstance(given, (str, int, float, bool, list)) or given is None:
        return source.error(location, f"'{shown}' is {_shown(given)}: {_lowered(message)}")
    return source.error(location, f"'{shown}': {_lowered(message)}")


def _keys_at(schema: type[Any], location: Location) -> Iterable[str]:
    """List the keys a schema allows at a location."""
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(schema, "model_fields", {}).get(part)
        if field is None:
            continue
        schema = _model_in(field.annotation) or schema
    return list(getattr(schema, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    """Find the model class inside an annotation such as `list[Rule]` or `ClusterSection | None`."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for inner in getattr(annotation, "__args__", ()) if (found := _model_in(inner))), None)


def _check_grid(source: YamlFile, grid: dict[str, Any]) -> dict[str, list[Any]]:
    """Check the axes and their values; ratios become floats."""
    fields = list(Recipe.model_fields)
    for axis, values in grid.items():
        at: Location = ("grid", axis)
        if axis not in AXES and axis not in fields:
            raise source.error(at, f"unknown axis '{axis}' in 'grid'{nearest(axis, [*AXES, *fields])}")
        if not isinstance(values, list) or not values:
            raise source.error(at, f"'grid.{axis}' is {_shown(values)}: expected a list with at least one value")
    for axis in AXES:
        if axis not in grid:
            raise source.error(("grid",), f"axis '{axis}' is missing in 'grid'")
    checked: dict[str, list[Any]] = {}
    for axis, values in grid.items():
        checked[axis] = [_check_value(source, axis, index, value) for index, value in enumerate(values)]
        for index, value in enumerate(checked[axis]):
            if value in checked[axis][:index]:
                raise source.error(("grid", axis, index), f"'grid.{axis}' holds {_shown(value)} twice")
    return checked


def _check_value(source: YamlFile, axis: str, index: int, value: Any) -> Any:
    at: Location = ("grid", axis, index)
    shown = f"'grid.{axis}' holds {_shown(value)}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    match axis:
        case "architecture":
            if value not in ARCHITECTURES:
                raise source.error(at, f"{shown}: no such architecture{nearest(str(value), ARCHITECTURES)}")
        case "dataset":
            if value not in DATASETS:
                raise source.error(at, f"{shown}: no such dataset{nearest(str(value), DATASETS)}")
        case "ratio":
            if not number or not 0 < value <= 1:
                raise source.error(at, f"{shown}: a ratio is above 0 and at most 1")
            return float(value)
        case "seed":
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEED:
                raise source.error(at, f"{shown}: a seed is a whole number from 0 to {MAX_SEED}")
        case _:
            try:
                return getattr(Recipe.model_validate({axis: value}), axis)
            except ValidationError as error:
                raise source.error(at, f"{shown}: {_lowered(str(error.errors()[0]['msg']))}") from error
    return value


def _expand(source: YamlFile, grid: dict[str, list[Any]], recipe: Recipe) -> list[Cell]:
    for axis in grid:
        if axis not in AXES and axis in recipe.model_fields_set:
            raise source.error(("training", axis), f"'{axis}' is an axis of the grid and a fixed value in 'training'")
    try:
        return expand(grid, recipe)
    except ValidationError as error:
        raise source.error(("grid",), f"a combination of the grid: {error.errors()[0]['msg']}") from error


def _check_gpus(source: YamlFile, section: SweepSection, cells: list[Cell]) -> None:
    """Refuse a number of GPUs that some run's replicas cannot be dealt out to, or that contradicts runs_per_gpu."""
    gpus = section.execution.gpus_per_run
    at: Location = ("execution", "gpus_per_run")
    for cell in cells:
        problem = sharing_problem(cell.spec.training, gpus)
        if problem:
            raise source.error(at, f"'execution.gpus_per_run' is {gpus}: {problem}")
    if gpus > 1 and section.cluster and section.cluster.runs_per_gpu > 1:
        words = f"and 'cluster.runs_per_gpu' is {section.cluster.runs_per_gpu}; leave one of them at 1"
        raise source.error(at, f"'execution.gpus_per_run' is {gpus} {words}")


def _load_cluster(source: YamlFile, section: ClusterSection | None, instead: str | None) -> Cluster | None:
    """Read the cluster file the sweep names, or the one given instead, and check the rules against its pools."""
    if section is None:
        if instead is not None:
            raise source.error((), f"'--cluster {instead}' needs a 'cluster' section that says which runs go where")
        return None
    name = instead or section.file
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        path = CLUSTERS / f"{name}.yaml"
        if not path.exists():
            known = [found.stem for found in sorted(CLUSTERS.glob("*.yaml"))]
            if instead:
                raise InputError(f"--cluster {name}: no such cluster{nearest(name, known)}")
            raise source.error(("cluster", "file"), f"no cluster '{name}'{nearest(name, known)}")
    else:
        path = Path(name) if instead else source.path.parent / name
    loaded: ClusterFile = _validate(read_yaml(path), ClusterFile)
    axes = list(source.data["grid"])
    for index, rule in enumerate(section.assign):
        at: Location = ("cluster", "assign", index)
        for pool in rule.pools:
            if pool not in loaded.pools:
                raise source.error((*at, "pool"), f"no pool '{pool}' in {path.name}{nearest(pool, loaded.pools)}")
        for axis in rule.when:
            if axis not in axes:
                raise source.error((*at, "when", axis), f"'{axis}' is no axis of the grid{nearest(axis, axes)}")
    return Cluster(path, loaded.pools, section)


def _choose_pools(
    source: YamlFile, cluster: Cluster | None, facts: dict[str, "_Facts"], cells: list[Cell]
) -> list[str]:
    """Give each cell its pool; without a cluster, this machine is the one pool."""
    if cluster is None:
        return [LOCAL] * len(cells)
    # By operations also where runs were timed: a pool chosen anew for what is left would move runs about.
    costs = []
    for cell in cells:
        candidates = candidate_pools(cell.axes, cluster.section.assign)
        if not candidates:
            words = f"no rule gives {cell.spec.run.id} a pool; end the list with a rule without 'when'"
            raise source.error(("cluster", "assign"), words)
        fact = facts[cell.axes["dataset"]]
        costs.append(
            {
                pool: estimate_s(
                    cell.spec,
                    device=cluster.pools[pool].device,
                    image_size=fact.image_size,
                    train_samples=subset_size(cell.spec.run.ratio, fact.train_samples),
                    val_samples=fact.val_samples,
                )
                for pool in candidates
            }
        )
    return spread(costs)


def _place(
    source: YamlFile, section: SweepSection, cluster: Cluster | None, pool: str, facts: "_Facts", cell: Cell
) -> PlacedRun:
    """Put a run into its pool and check that its subset can be trained on."""
    run = cell.spec.run
    at: Location = ("grid", "ratio", section.grid["ratio"].index(run.ratio))
    problem = subset_problem(run.ratio, facts.train_samples, facts.classes)
    train_samples = subset_size(run.ratio, facts.train_samples)
    problem = problem or replica_problem(train_samples, cell.spec.training)
    if problem:
        raise source.error(at, f"{DATASETS[run.dataset].title}: {problem}")
    device = cluster.pools[pool].device if cluster else "cpu"
    return PlacedRun(cell, pool, device, train_samples, facts.val_samples, facts.image_size)


def _check_rules_used(source: YamlFile, cluster: ClusterSection, cells: list[Cell]) -> None:
    """Refuse a rule that matches no run: it is a typing error or a leftover."""
    for index, rule in enumerate(cluster.assign):
        if not any(rule.matches(cell.axes) for cell in cells):
            raise source.error(
                ("cluster", "assign", index), f"the rule for pool '{', '.join(rule.pools)}' matches no run"
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """Give the end of a sentence that offers the nearest valid name, or lists them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; expected one of: {', '.join(known)}"


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else "nothing" if value is None else str(value)


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]
