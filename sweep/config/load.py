"""From a YAML file to a validated sweep. Every error a sweep file can have is raised here, with file and line."""

from pathlib import Path

from sweep.config.explain import validate
from sweep.config.grid import check_grid, expand_checked
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
    grid = check_grid(source, section.grid)
    specs = expand_checked(source, grid, section.training)
    check_gpus(source, section, specs)
    target = load_cluster(source, section.cluster, cluster)
    data = data or Path(section.data)
    facts = {name: dataset_facts(name, data) for name in grid["dataset"]}
    runs = place_runs(source, section, target, facts, specs)
    if section.cluster:
        check_rules_used(source, section.cluster, specs)
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
