"""Event files as TensorBoard reads them, written without TensorFlow or PyTorch.

TensorBoard's own ``EventFileWriter`` and ``hparams.summary`` import TensorFlow where it is
installed: 7 seconds, and it cannot share a process with PyTorch. Records and messages are
TensorBoard's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    STATUS_FAILURE,
    STATUS_SUCCESS,
    STATUS_UNKNOWN,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.summary.writer.record_writer import RecordWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_STATUS = {"complete": STATUS_SUCCESS, "failed": STATUS_FAILURE}


def append(path: Path, events: Iterable[Event]) -> None:
    """Append events to a file, which is created with its folder when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        writer = RecordWriter(file)
        if file.tell() == 0:
            head = Event(wall_time=time.time(), file_version="brain.Event:2")
            writer.write(head.SerializeToString())
        for event in events:
            writer.write(event.SerializeToString())


def scalars(values: Mapping[str, float], step: int) -> Event:
    """Return an event with a value a tag."""
    summary = Summary(
        value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    )
    return Event(wall_time=time.time(), step=step, summary=summary)


def hparams(spec: Mapping[str, Any], state: str) -> Event:
    """Return the event that says with which parameters a run was made, and how it ended.

    Args:
        spec: Parameters; numbers and truth values stay what they are, None is left out.
        state: ``complete``, ``pruned`` or ``failed``; TensorBoard has no word for pruned.
    """
    now = time.time()
    start = SessionStartInfo(start_time_secs=now)
    for name, value in spec.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[name].number_value = value
        elif value is not None:
            start.hparams[name].string_value = _text(value)
    end = SessionEndInfo(status=_STATUS.get(state, STATUS_UNKNOWN), end_time_secs=now)
    summary = Summary(
        value=[
            _plugin_data(
                metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)
            ),
            _plugin_data(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
        ]
    )
    return Event(wall_time=now, summary=summary)


def _plugin_data(tag: str, data: HParamsPluginData) -> Summary.Value:
    return Summary.Value(
        tag=tag, tensor=metadata.NULL_TENSOR, metadata=metadata.create_summary_metadata(data)
    )


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
