"""From a YAML file to a validated sweep. Every error a sweep file can have is raised here, with file and line."""

from pathlib import Path

from sweep.config.explain import validate
from sweep.config.grid import axis_names, expand_checked, read_grids, values_on
from sweep.config.placement import check_gpus, check_rules_used, dataset_facts, load_cluster, place_runs
from sweep.config.schema import Sweep, SweepSection
from sweep.config.yaml_file import read_yaml


def load_sweep(
    file: Path, *, output: Path | None = None, data: Path | None = None, cluster: str | None = None
) -> Sweep:
    """Read and check a sweep file; output and data override the file's folders, cluster its cluster file.

    Raises InputError: one sentence with file, line, what was expected and the nearest valid name.
    """
    source = read_yaml(file)
    section = validate(source, SweepSection)
    grids = read_grids(source, section.grid)
    cells = expand_checked(source, grids, section.training, section.exclude, section.only)
    specs = [cell.spec for cell in cells]
    check_gpus(source, section, specs)
    axes = axis_names(grids)
    target = load_cluster(source, section.cluster, cluster, axes)
    data = data or Path(section.data)
    facts = {name: dataset_facts(name, data) for name in values_on(grids, "dataset")}
    runs = place_runs(source, target, facts, cells, axes)
    if section.cluster:
        check_rules_used(source, section.cluster, specs, axes)
    return Sweep(
        file=file,
        name=section.name,
        runs=runs,
        cluster=target,
        execution=section.execution,
        folder=(output or Path(section.output)) / section.name,
        data=data,
        fingerprints={name: fact.fingerprint for name, fact in facts.items() if fact.fingerprint},
        code=tuple(section.code),
    )
