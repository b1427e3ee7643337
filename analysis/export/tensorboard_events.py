"""A folder of events a run: a scalar series a metric, and the settings for the HPARAMS page.

Scalars are float32, TensorBoard's own precision. Written with the tensorboard package's own records, without torch or
TensorFlow; its writer is not used, since that names files by clock, host and process.
"""

import io
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from analysis.export.runs import ended, epoch_ends, epochs_of, in_plan_order, settings, started
from analysis.study import Study
from trainer.records.result import Result

TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "train_accuracy": "accuracy/train",
    "val_accuracy": "accuracy/val",
    "learning_rate": "learning_rate",
    "epoch_seconds": "epoch_seconds",
}
FILE = "events.out.tfevents.sweep"  # TensorBoard knows an event file by "tfevents" in its name


def names(study: Study) -> list[str]:
    """Name the files beside missing.csv."""
    return [f"{result.run.id}/{FILE}" for result in in_plan_order(study)]


def contents(study: Study, folder: Path, tick: Callable[[], None]) -> Generator[bytes, None, None]:
    """Yield the events of each run."""
    for result in in_plan_order(study):
        yield _events(result)
        tick()


def _events(result: Result) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    start, end = started(result).timestamp(), ended(result).timestamp()
    events = [
        Event(wall_time=start, file_version="brain.Event:2"),
        Event(wall_time=start, summary=_session_start(result, start)),
    ]
    for epoch, (values, wall_time) in enumerate(zip(epochs_of(result), epoch_ends(result), strict=True)):
        scalars = [Summary.Value(tag=tag, simple_value=values[name]) for name, tag in TAGS.items()]
        events.append(Event(wall_time=wall_time, step=epoch, summary=Summary(value=scalars)))
    events.append(Event(wall_time=end, summary=_session_end(end)))
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()


def _session_start(result: Result, start: float) -> Any:
    from google.protobuf.struct_pb2 import Value
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    info = SessionStartInfo(group_name=result.run.id, start_time_secs=start)
    for name, value in settings(result).items():
        if isinstance(value, bool):
            info.hparams[name].CopyFrom(Value(bool_value=value))
        elif isinstance(value, str):
            info.hparams[name].CopyFrom(Value(string_value=value))
        else:
            info.hparams[name].CopyFrom(Value(number_value=value))
    return _hparams(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def _session_end(end: float) -> Any:
    from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
    from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    info = SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=end)
    return _hparams(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def _hparams(tag: str, data: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR, PLUGIN_NAME

    # Not tensorboard's hparams_pb: it serializes a map in whatever order, so the bytes would differ between calls.
    content = data.SerializeToString(deterministic=True)
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content))
    return Summary(value=[Summary.Value(tag=tag, tensor=NULL_TENSOR, metadata=metadata)])
