"""`sweep init`: a cluster file and a first sweep file that run here. Only asks, writes and prints."""

from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.console import err
from sweep.errors import InputError

IMAGES, VALIDATION = 240, 100  # of the drawn CIFAR-10


def init(
    folder: Annotated[Path, typer.Argument(help="where the files go")] = Path(),
    probe: Annotated[bool, typer.Option(help="also look at the GPUs of each pool, by a job of a few seconds")] = True,
) -> None:
    """Ask Slurm what is here, and write a cluster file and a first sweep file that run."""
    from slurm.origin import cluster_name
    from sweep.config.load import load_sweep
    from sweep.init.draft import best, cluster_text, drafts, seen, sweep_text
    from sweep.init.look import limits_here, look_at
    from trainer.records.files import create_exclusive

    cluster_file, sweep_file = folder / "cluster.yaml", folder / "sweep.yaml"
    for path in (cluster_file, sweep_file):
        if path.exists():
            raise InputError(f"{path}: already exists, and is left as it is; move it, or name another folder")
    limits = limits_here()
    found = drafts(limits) if limits else []
    if limits and not found:
        raise InputError("no partition of this cluster takes jobs now; 'sinfo' shows them")
    if probe and any(draft.gres for draft in found):
        err.print("looking at the GPUs of each pool; busy pools take half a minute", highlight=False)
        shown = look_at(found)
        found = [seen(draft, shown.get(draft.name)) for draft in found]
    folder.mkdir(parents=True, exist_ok=True)
    data, drawn = _images(folder)
    if limits:
        text = cluster_text(cluster_name() or "cluster", found, limits.accounts or {})
        create_exclusive(cluster_file, text.encode())
        print(cluster_file)
    create_exclusive(sweep_file, sweep_text(best(found) if found else None, data, drawn=drawn).encode())
    print(sweep_file)
    runs = len(load_sweep(sweep_file).runs)
    for draft in found:
        device = draft.device if isinstance(draft.device, str) else draft.device["name"]
        err.print(f"  {draft.name}: {device}; {'; '.join(draft.words)}", highlight=False, soft_wrap=True)
    where = f"go to pool {best(found).name}" if found else "run on this machine, as there is no Slurm here"
    err.print(f"the {runs} runs of {sweep_file} {where}; 'sweep submit {sweep_file}' starts them", highlight=False)


def _images(folder: Path) -> tuple[str, bool]:
    """The data folder to name: one with CIFAR-10 that is there, or drawn images, and whether they are drawn."""
    from trainer.data.prepare import prepare
    from trainer.data.prepared import read_manifest
    from trainer.data.synthesize import synthesize

    if read_manifest(folder / "data", "cifar10") is not None:
        return "data", False
    drawn = folder / "data" / "drawn"
    archive = synthesize("cifar10", drawn / "archives", train=IMAGES, val=VALIDATION)
    prepare("cifar10", str(archive), drawn, unofficial=True)
    return "data/drawn", True
