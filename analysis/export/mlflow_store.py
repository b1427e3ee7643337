"""mlflow.db: an MLflow store with one experiment, the sweep, and a run a run.

The store is brought up to date in a copy that then takes its place, so a reader sees the old one or the new one. A run
is known by its tag sweep.run_id and left alone if its result is the one it was made of. SQLite, since MLflow has given
up its store of plain files.
"""

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError
from analysis.export.runs import (
    described,
    ended,
    epoch_ends,
    epochs_of,
    in_plan_order,
    measured,
    settings,
    started,
)
from analysis.export.surroundings import surroundings
from analysis.study import Study
from trainer.records.files import to_json
from trainer.records.result import Result

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STORE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts:/"  # wherever the server that shows the store keeps them; an export has none
RUN_ID, CONTENT = "sweep.run_id", "sweep.result"
METRICS_A_CALL = 1_000  # MLflow takes no more
RUNS_A_PAGE = 1_000
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}


def names(study: Study) -> list[str]:
    """Name the files beside missing.csv."""
    return [STORE]


def contents(study: Study, folder: Path, tick: Callable[[], None]) -> Generator[bytes, None, None]:
    """Yield the store: that of the folder, if there is one, brought up to date."""
    with tempfile.TemporaryDirectory() as scratch, surroundings("MLFLOW_", QUIET, ("mlflow", "alembic")):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = Path(scratch) / STORE
        if (folder / STORE).exists():
            _copy(folder / STORE, store)
        else:
            # With MLflow's own default the store would hold the path of the folder the export was started in.
            SqlAlchemyStore(f"sqlite:///{store}", ARTIFACTS)
        try:
            _update(MlflowClient(tracking_uri=f"sqlite:///{store}"), study, tick)
        except MlflowException as error:
            raise AnalysisError(f"export to mlflow: {error}; name another folder for a new store") from error
        yield store.read_bytes()


def _copy(source: Path, target: Path) -> None:
    """Copy a database as of one moment, also while a server writes to it."""
    try:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except sqlite3.Error as error:
        raise AnalysisError(f"{source}: no readable MLflow store ({error}); name another folder") from error


def _update(client: "MlflowClient", study: Study, tick: Callable[[], None]) -> None:
    experiment = _experiment(client, study.name)
    there = _runs(client, experiment)
    for result in in_plan_order(study):
        content = hashlib.sha256(to_json(result)).hexdigest()
        earlier = there.pop(result.run.id, [])
        if [run.data.tags.get(CONTENT) for run in earlier] != [content]:
            _delete(client, earlier)
            _log(client, experiment, result, content)
        tick()
    for runs in there.values():
        _delete(client, runs)


def _experiment(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=ARTIFACTS))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _runs(client: "MlflowClient", experiment: str) -> dict[str, "list[Run]"]:
    """Return the runs that exports made, by their id in the sweep; others in the same experiment are left out."""
    found: dict[str, list[Run]] = {}
    token: str | None = None
    while token != "":
        page = client.search_runs([experiment], max_results=RUNS_A_PAGE, page_token=token)
        for run in page:
            if RUN_ID in run.data.tags:
                found.setdefault(run.data.tags[RUN_ID], []).append(run)
        token = page.token or ""
    return found


def _delete(client: "MlflowClient", runs: "list[Run]") -> None:
    for run in runs:
        client.delete_run(run.info.run_id)


def _log(client: "MlflowClient", experiment: str, result: Result, content: str) -> None:
    from mlflow.entities import Metric, Param

    run = client.create_run(
        experiment, start_time=_ms(started(result)), run_name=result.run.id, tags=_tags(result, content)
    )
    identity, end = run.info.run_id, _ms(ended(result))
    metrics = [
        Metric(name, value, round(1000 * seconds), epoch)
        for epoch, (values, seconds) in enumerate(zip(epochs_of(result), epoch_ends(result), strict=True))
        for name, value in values.items()
    ]
    metrics += [Metric(_best_name(name), value, end, 0) for name, value in measured(result).items()]
    params = [Param(name, str(value)) for name, value in settings(result).items()]
    client.log_batch(identity, params=params)
    for first in range(0, len(metrics), METRICS_A_CALL):
        client.log_batch(identity, metrics=metrics[first : first + METRICS_A_CALL])
    client.set_terminated(identity, "FINISHED", end_time=end)


def _best_name(name: str) -> str:
    """Tell the best value from the series of the same name; times have none."""
    return name if name.endswith("_seconds") else f"best_{name}"


def _tags(result: Result, content: str) -> dict[str, str]:
    described_here = {f"sweep.{name}": str(value) for name, value in described(result).items() if name != "id"}
    return {**described_here, RUN_ID: result.run.id, CONTENT: content, "sweep.state": "done"}


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
