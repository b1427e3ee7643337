"""Have a module of ours run in a pool's container: the folders it needs, its options for srun, its command. Pure.

The image brings Python and what `requirements.txt` names, for the GPU's driver too. The code comes from outside: what
was frozen for the jobs lies in the sweep's folder, and what the doctor tries out is that here.
"""

from collections.abc import Sequence
from pathlib import Path

from slurm.code import PACKAGES
from slurm.jobs import ContainerRecord, Resources
from trainer.records.code import ROOT, module_command

CODE = "/sweep"  # where our packages lie inside
# Of a user's shell: with them the task would not see Slurm's variables.
_SEALS = ("APPTAINER_CLEANENV", "APPTAINER_CONTAINALL", "SINGULARITY_CLEANENV", "SINGULARITY_CONTAINALL")


def seeing(wanted: Resources, folders: Sequence[Path], *, frozen: bool = False) -> Resources:
    """What jobs ask for, with these folders in their container, if they have one.

    frozen: the code they run is in one of the folders, and that here is not to be seen.
    """
    if wanted.container is None:
        return wanted
    here = ROOT.resolve()
    code = [] if frozen else [f"{here / package}:{CODE}/{package}:ro" for package in PACKAGES]
    mounts = [*wanted.container.mounts, *(f"{folder}:{folder}" for folder in folders), *code]
    return wanted.model_copy(update={"container": wanted.container.model_copy(update={"mounts": mounts})})


def unmountable(folder: Path) -> str | None:
    """Say why a container cannot be given a folder; None if it can."""
    if not set(",:") & set(str(folder)):
        return None
    return f"{folder}: ',' and ':' in a path have a meaning of their own for containers; choose another folder"


def srun_options(container: ContainerRecord | None) -> list[str]:
    """What srun is told of a container; only of Pyxis, which is part of it."""
    if container is None or container.runtime != "pyxis":
        return []
    return [f"--container-image={container.image}", f"--container-mounts={','.join(container.mounts)}"]


def launched(container: ContainerRecord | None, module: str, *arguments: str, code: Path | None = None) -> list[str]:
    """The command that runs a module of ours, in a container or, without one, with this Python.

    code: the snapshot that it runs; None for the code here.
    """
    if container is None:
        return [*module_command(module, code), *arguments]
    here = [] if code else ["env", f"PYTHONPATH={CODE}"]
    inside = [*here, *module_command(module, code, container.python), *arguments]
    if container.runtime == "pyxis":
        return inside
    unsealed = ["env", *(f"--unset={name}" for name in _SEALS)]
    driver = ["--nv"] if container.gpu else []
    return [*unsealed, "apptainer", "exec", *driver, "--bind", ",".join(container.mounts), container.image, *inside]
