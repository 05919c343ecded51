"""What an ONNX file says about itself, read without running it.

onnxruntime opens whatever other file a model refers to, even one found in the working directory
when it is given the model as bytes, so a stranger's model is searched for such references first.
That takes the protobuf wire format and the field numbers of ``onnx.proto``, both frozen for good,
and no further package.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_DEPTH = 64
"""Deepest nesting of messages that is followed."""

_MESSAGES: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "model": {7: "graph", 20: "training", 25: "function"},
        "training": {1: "graph", 2: "graph"},
        "function": {7: "node", 11: "attribute"},
        "graph": {1: "node", 5: "tensor", 15: "sparse"},
        "node": {5: "attribute"},
        "attribute": {
            5: "tensor",
            6: "graph",
            10: "tensor",
            11: "graph",
            22: "sparse",
            23: "sparse",
        },
        "sparse": {1: "tensor", 2: "tensor"},
        "tensor": {},
    }
)
"""Fields through which a message reaches tensors."""
_METADATA_PROPS = 14
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def read_metadata(data: bytes) -> dict[str, str]:
    """Return the model's ``metadata_props``.

    Raises:
        ValueError: When the bytes are no protobuf message.
    """
    metadata: dict[str, str] = {}
    for number, value in _fields(memoryview(data)):
        if number == _METADATA_PROPS and isinstance(value, memoryview):
            entry = dict(_fields(value))
            key, text = entry.get(1), entry.get(2)
            if isinstance(key, memoryview) and isinstance(text, memoryview):
                metadata[bytes(key).decode()] = bytes(text).decode()
    return metadata


def refers_to_other_files(data: bytes) -> bool:
    """Whether any tensor of the model, however deep, is stored outside the file.

    Raises:
        ValueError: When the bytes are no protobuf message, or are nested too deeply.
    """
    return _any_external(memoryview(data), "model", 0)


def _any_external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    inner = _MESSAGES[kind]
    for number, value in _fields(message):
        if kind == "tensor" and number in (_EXTERNAL_DATA, _DATA_LOCATION):
            if number == _EXTERNAL_DATA or value != 0:
                return True
        elif (
            number in inner
            and isinstance(value, memoryview)
            and _any_external(value, inner[number], depth + 1)
        ):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield field number and value: an integer, or the bytes of anything longer."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError("no protobuf field")
        if wire == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == 2:
            size, position = _varint(message, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError("no protobuf wire type")
        if size > end - position:
            raise ValueError("ends too early")
        yield number, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("ends too early")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("no protobuf integer")
