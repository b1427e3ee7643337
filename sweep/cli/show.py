"""The command that shows one run. Only parse and print."""

from collections.abc import Iterator
from typing import Any

from sweep.cli.console import out, print_json
from sweep.cli.look import status_entry
from sweep.cli.options import Data, Json, Names, Output, split
from sweep.config.load import load_sweep
from sweep.errors import InputError
from sweep.show import Shown, Tried, look_at


def show(names: Names = None, output: Output = None, data: Data = None, json_: Json = False) -> None:
    """Show one run: how it stands, its attempts, its folder, and the code it runs."""
    file, run_ids = split(names)
    if len(run_ids) != 1:
        raise InputError("give one run id; 'sweep status' lists them")
    shown = look_at(load_sweep(file, output=output, data=data), run_ids[0])
    if not json_:
        for name, text in _lines(shown):
            out.print(f"{name:<10}{text}", highlight=False, markup=False, soft_wrap=True)
        return
    print_json(
        **status_entry(shown.status),
        folder=str(shown.folder.path.absolute()),
        code=shown.code and shown.code.model_dump(),
        snapshot=shown.snapshot and str(shown.snapshot),
        attempts=[_attempt_entry(tried) for tried in shown.attempts],
    )


def _attempt_entry(tried: Tried) -> dict[str, Any]:
    fields = tried.record.model_dump(mode="json", exclude={"schema_version"})
    return {**fields, "code": tried.code and tried.code.snapshot}


def _lines(shown: Shown) -> Iterator[tuple[str, str]]:
    status = shown.status
    yield "run", status.id
    yield "state", ": ".join(filter(None, (status.state.value, status.cause and status.cause.value, status.message)))
    yield "epochs", f"{status.epoch} of {status.epochs}"
    if status.job:
        yield "job", status.job + (f" on {status.node}" if status.node else "")
    yield "folder", str(shown.folder.path.absolute())
    if shown.code:
        yield "code", str(shown.code)
        yield "", str(shown.snapshot or "its copy is not there any more")
    else:
        yield "code", "not recorded" if shown.attempts or status.job else "that of the moment it is submitted"
    for tried in shown.attempts:
        yield f"attempt {tried.record.number}", _attempt(shown, tried)


def _attempt(shown: Shown, tried: Tried) -> str:
    record = tried.record
    what = f"{record.outcome or 'open'}{f' ({record.cause.value})' if record.cause else ''}"
    epochs = f"epochs {record.start_epoch} to {record.end_epoch if record.outcome else '…'}"
    when = f"{record.started.astimezone():%Y-%m-%d %H:%M}"
    other = f", code {tried.code.snapshot}" if tried.code and tried.code != shown.code else ""
    return f"{what}, {epochs}, {when} on {record.host}, job {record.job}{other}"
