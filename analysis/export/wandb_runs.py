"""A folder a run as Weights & Biases leaves it offline; `wandb sync` uploads it, whenever and from wherever one likes.

Written by wandb itself in offline mode, with what it would otherwise collect of this machine switched off. A run has
the same id in every export, so a second upload meets the first. wandb stamps a run's own start with the clock; the
times of the epochs, and started and ended in its config, are those of the training.
"""

import hashlib
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

from analysis.errors import AnalysisError
from analysis.export.runs import described, ended, epoch_ends, epochs_of, in_plan_order, measured, settings, started
from analysis.export.surroundings import surroundings
from analysis.load import variant_of
from analysis.study import Study
from trainer.models.catalog import short_name
from trainer.records.result import Result


def names(study: Study) -> list[str]:
    """Name the files beside missing.csv."""
    return [_name(study.name, result) for result in in_plan_order(study)]


def contents(study: Study, folder: Path, tick: Callable[[], None]) -> Generator[bytes, None, None]:
    """Yield each run's records."""
    with tempfile.TemporaryDirectory() as scratch, surroundings("WANDB_", _variables(scratch)):
        import wandb

        if wandb.run is not None:
            raise AnalysisError(
                "export to wandb-offline: this process has a wandb run open; finish it, then export again"
            )
        results = in_plan_order(study)
        try:
            for result in results:
                _record(study.name, result, Path(scratch))
                tick()
        except wandb.Error as error:
            raise AnalysisError(f"export to wandb-offline: {error}") from error
        finally:
            wandb.teardown()  # waits for wandb's process, which writes the last records after `finish` has returned
        for result in results:
            (path,) = Path(scratch).glob(f"wandb/offline-run-*/run-{_identity(study.name, result)}.wandb")
            yield path.read_bytes()


def _variables(scratch: str) -> dict[str, str]:
    """Keep wandb off the network, and off the user's own folders and settings."""
    places = {f"WANDB_{name}": scratch for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR")}
    return {**places, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


def _record(sweep: str, result: Result, scratch: Path) -> None:
    import wandb

    identity = _identity(sweep, result)
    start, end = started(result), ended(result)
    run = wandb.init(
        project=sweep,
        id=identity,
        name=result.run.id,
        group=_cell(result),
        config={
            **settings(result),
            **described(result),
            "started": start.isoformat(),
            "ended": end.isoformat(),
        },
        dir=str(scratch),
        mode="offline",
        reinit="create_new",
        settings=wandb.Settings(
            host=result.hardware.host,
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            save_code=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )
    for epoch, (values, seconds) in enumerate(zip(epochs_of(result), epoch_ends(result), strict=True)):
        run.log({**values, "_timestamp": seconds}, step=epoch)
    for name, value in measured(result).items():
        run.summary[name if name.endswith("_seconds") else f"best_{name}"] = value
    run.finish()


def _cell(result: Result) -> str:
    """Name what the run's seeds have in common."""
    run, variant = result.run, variant_of(result.run)
    return f"{short_name(run.architecture)}-{run.dataset}-r{run.ratio}" + (f"-{variant}" if variant else "")


def _identity(sweep: str, result: Result) -> str:
    """Return an id that wandb accepts, whatever the run is called."""
    return hashlib.sha256(f"{sweep}/{result.run.id}".encode()).hexdigest()[:16]


def _name(sweep: str, result: Result) -> str:
    identity = _identity(sweep, result)
    return f"offline-run-{started(result):%Y%m%d_%H%M%S}-{identity}/run-{identity}.wandb"
