"""LiteRT's model file (a flatbuffer, identifier TFL3), written from operators on constant and named tensors.

Only what a CondenseNet needs, by the numbers of LiteRT's published schema (`schema.fbs`, version 3): fields of its
tables by their position, operators and their options by their codes. They are numbers here, because exporting must work
where LiteRT is not installed; a test compares them with the schema that LiteRT ships.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SAME, VALID = 0, 1  # padding: as much as keeps the size at stride 1, or none
NO_ACTIVATION, RELU = 0, 1
_IDENTIFIER, _VERSION = b"TFL3", 3
_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9, "uint16": 16}
_ALIGNED = 16  # bytes, of a buffer's content


@dataclass(frozen=True)
class Kind:
    """An operator of LiteRT.

    `code` and `version` are its own, `options` is the code of its table of options, and `fields` has each option's
    (position in that table, width in bytes).
    """

    code: int
    version: int
    options: int
    fields: dict[str, tuple[int, int]] = field(default_factory=dict)


_STRIDES = {"padding": (0, 1), "stride_w": (1, 4), "stride_h": (2, 4)}
ADD = Kind(0, 1, 11, {"activation": (0, 1)})
AVERAGE_POOL = Kind(1, 1, 5, {**_STRIDES, "filter_w": (3, 4), "filter_h": (4, 4), "activation": (5, 1)})
CONCATENATION = Kind(2, 1, 10, {"axis": (0, 4)})
CONV = Kind(3, 6, 1, {**_STRIDES, "activation": (3, 1)})  # version 6: in groups, where a filter is narrower
DEPTHWISE_CONV = Kind(4, 3, 2, {**_STRIDES, "multiplier": (3, 4), "activation": (4, 1)})  # version 3: of int8
DEQUANTIZE = Kind(6, 2, 38)
DEQUANTIZE_HALF = Kind(6, 3, 38)  # version 3: of float16
FULLY_CONNECTED = Kind(9, 1, 8)
MULTIPLY = Kind(18, 1, 21, {"activation": (0, 1)})
RESHAPE = Kind(22, 1, 17)
PAD = Kind(34, 1, 22)
GATHER = Kind(36, 1, 23, {"axis": (0, 4)})
TRANSPOSE = Kind(39, 4, 26)  # version 4: of five dimensions
CAST = Kind(53, 1, 37)
MAXIMUM = Kind(55, 1, 39)
MINIMUM = Kind(57, 1, 39)
MEAN = Kind(40, 1, 27, {"keep_dims": (0, 1)})
QUANTIZE = Kind(114, 2, 89)


@dataclass(frozen=True)
class Scales:
    """How a tensor's whole numbers stand for real ones: scale * (number - zero), one pair or one for each `axis`."""

    scales: tuple[float, ...]
    zeros: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph: its place there, its shape, and what its numbers are."""

    place: int
    shape: tuple[int, ...]
    kind: str = "float32"
    scales: Scales | None = None


@dataclass
class Graph:
    """Tensors and operators in the order they run; `to_bytes` writes the file."""

    _tensors: list[tuple[Tensor, int, str]] = field(default_factory=list)  # with its buffer and its name
    _buffers: list[bytes] = field(default_factory=lambda: [b""])  # the first is that of all tensors filled at run time
    _kinds: list[Kind] = field(default_factory=list)
    _operators: list[tuple[Kind, list[int], int, dict[str, int]]] = field(default_factory=list)  # …, inputs, output, …

    def tensor(self, shape: Sequence[int], kind: str = "float32", scales: Scales | None = None) -> Tensor:
        """Add a tensor that an operator or the caller fills at run time."""
        return self._tensor(tuple(shape), kind, scales, 0)

    def constant(self, values: Array, scales: Scales | None = None) -> Tensor:
        """Add a tensor of float32, float16, int32 or int8 that is part of the model."""
        self._buffers.append(np.ascontiguousarray(values).tobytes())
        return self._tensor(values.shape, values.dtype.name, scales, len(self._buffers) - 1)

    def _tensor(self, shape: tuple[int, ...], kind: str, scales: Scales | None, buffer: int) -> Tensor:
        tensor = Tensor(len(self._tensors), shape, kind, scales)
        self._tensors.append((tensor, buffer, f"t{tensor.place}"))
        return tensor

    def add(
        self, kind: Kind, inputs: Sequence[Tensor], shape: Sequence[int], like: Tensor | None = None, **options: int
    ) -> Tensor:
        """Add an operator with these options (0 where not given); return its output, of this shape.

        The output's numbers are float32, or those of `like`.
        """
        output = self.tensor(shape) if like is None else self.tensor(shape, like.kind, like.scales)
        return self.add_into(output, kind, inputs, **options)

    def add_into(self, output: Tensor, kind: Kind, inputs: Sequence[Tensor], **options: int) -> Tensor:
        """Add an operator that fills `output`; return that."""
        if kind not in self._kinds:
            self._kinds.append(kind)
        self._operators.append((kind, [tensor.place for tensor in inputs], output.place, options))
        return output

    def to_bytes(self, ends: tuple[Tensor, Tensor], names: tuple[str, str], description: str) -> bytes:
        """Return the content of the model file.

        Args:
            ends: the model's input and output.
            names: what the input and the output are called.
            description: free text, which `description_of` reads back.
        """
        for end, name in zip(ends, names, strict=True):
            self._tensors[end.place] = (*self._tensors[end.place][:2], name)
        build = flatbuffers.Builder(1 << 16)
        contents = [{0: _content(build, buffer)} if buffer else {} for buffer in self._buffers]
        buffers = _vector(build, [_table(build, offsets) for offsets in contents])
        tensors = _vector(build, [_tensor_table(build, *entry) for entry in self._tensors])
        operators = _vector(build, [self._operator(build, *operator) for operator in self._operators])
        codes = _vector(build, [self._code(build, kind) for kind in self._kinds])
        inputs, outputs = (_integers(build, [end.place]) for end in ends)
        graph = _table(build, {0: tensors, 1: inputs, 2: outputs, 3: operators})
        text, graphs = build.CreateString(description), _vector(build, [graph])
        root = _table(build, {1: codes, 2: graphs, 3: text, 4: buffers}, {0: (4, _VERSION)})
        build.Finish(root, file_identifier=_IDENTIFIER)
        return bytes(build.Output())

    def _operator(self, build: Any, kind: Kind, inputs: list[int], output: int, options: dict[str, int]) -> int:
        scalars = {kind.fields[name][0]: (kind.fields[name][1], value) for name, value in options.items()}
        offsets = {1: _integers(build, inputs), 2: _integers(build, [output]), 4: _table(build, {}, scalars)}
        return _table(build, offsets, {0: (4, self._kinds.index(kind)), 3: (1, kind.options)})

    @staticmethod
    def _code(build: Any, kind: Kind) -> int:
        return _table(build, {}, {0: (1, kind.code), 2: (4, kind.version), 3: (4, kind.code)})


def is_model(content: bytes) -> bool:
    """Return whether the content begins as LiteRT's model files do."""
    return content[4:8] == _IDENTIFIER


def description_of(model: bytes) -> str:
    """Return the description that `Graph.to_bytes` was given.

    Raises:
        ValueError: the bytes are no model file of LiteRT, or a damaged one.
    """
    if not is_model(model):
        raise ValueError("it is no model for LiteRT")
    try:
        root = flatbuffers.encode.Get(flatbuffers.packer.uoffset, model, 0)
        table = flatbuffers.Table(bytearray(model), root)
        at = table.Offset(4 + 2 * 3)
        return str(table.String(table.Pos + at), "utf-8") if at else ""
    except Exception as error:  # offsets of a damaged file lead anywhere
        raise ValueError(f"it is a damaged model for LiteRT: {error}") from None


# ---- flatbuffers -----------------------------------------------------------------------------------------


def _table(build: Any, offsets: dict[int, int], scalars: dict[int, tuple[int, int]] | None = None) -> int:
    """Write a table; offsets by position, scalars by position as (width in bytes, value)."""
    scalars = scalars or {}
    build.StartObject(max([*offsets, *scalars], default=-1) + 1)
    for place, offset in offsets.items():
        build.PrependUOffsetTRelativeSlot(place, offset, 0)
    prepend: dict[int, Callable[[int, int, int], None]] = {
        1: build.PrependInt8Slot,
        4: build.PrependInt32Slot,
    }
    for place, (width, value) in scalars.items():
        prepend[width](place, value, 0)
    return int(build.EndObject())


def _vector(build: Any, offsets: Sequence[int]) -> int:
    build.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        build.PrependUOffsetTRelative(offset)
    return int(build.EndVector())


def _integers(build: Any, values: Sequence[int]) -> int:
    return int(build.CreateNumpyVector(np.asarray(values, "<i4")))


def _content(build: Any, content: bytes) -> int:
    build.StartVector(1, len(content), _ALIGNED)
    build.head -= len(content)
    build.Bytes[build.head : build.head + len(content)] = content
    return int(build.EndVector())


def _tensor_table(build: Any, tensor: Tensor, buffer: int, name: str) -> int:
    offsets = {0: _integers(build, tensor.shape), 3: build.CreateString(name)}
    if tensor.scales is not None:
        offsets[4] = _scales_table(build, tensor.scales)
    return _table(build, offsets, {1: (1, _TYPES[tensor.kind]), 2: (4, buffer)})


def _scales_table(build: Any, scales: Scales) -> int:
    numbers = build.CreateNumpyVector(np.asarray(scales.scales, "<f4"))
    zeros = build.CreateNumpyVector(np.asarray(scales.zeros, "<i8"))
    return _table(build, {2: int(numbers), 3: int(zeros)}, {6: (4, scales.axis)})
