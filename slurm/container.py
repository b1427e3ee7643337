"""Have a module of ours run in a pool's container: the folders it needs, its options for srun, its command. Pure.

The image brings Python and what `requirements.txt` names, for the GPU's driver too. The code comes from where it was
submitted, so that what runs inside is what would run outside.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from slurm.jobs import ContainerRecord, Resources

CODE = "/sweep"  # where our packages lie inside
PACKAGES = ("slurm", "trainer")
# Of a user's shell: with them the task would not see Slurm's variables.
_SEALS = ("APPTAINER_CLEANENV", "APPTAINER_CONTAINALL", "SINGULARITY_CLEANENV", "SINGULARITY_CONTAINALL")


def seeing(wanted: Resources, folders: Sequence[Path]) -> Resources:
    """What jobs ask for, with these folders in their container, if they have one."""
    if wanted.container is None:
        return wanted
    here = Path(__file__).resolve().parents[1]
    code = [f"{here / package}:{CODE}/{package}:ro" for package in PACKAGES]
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


def launched(container: ContainerRecord | None, module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours, in a container or, without one, with this Python."""
    if container is None:
        return [sys.executable, "-u", "-m", module, *arguments]
    inside = ["env", f"PYTHONPATH={CODE}", container.python, "-u", "-m", module, *arguments]
    if container.runtime == "pyxis":
        return inside
    unsealed = ["env", *(f"--unset={name}" for name in _SEALS)]
    driver = ["--nv"] if container.gpu else []
    return [*unsealed, "apptainer", "exec", *driver, "--bind", ",".join(container.mounts), container.image, *inside]
