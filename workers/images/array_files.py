"""Decoded images as plain .npy files, written block by block while they are decoded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from workers.images.reading import DecodingRecord, KeptBlocks, at_their_depth
from workers.images.source import Block, ImageLayout, Shape, SourceSplit, details_to_dict
from workers.images.splits import Positions
from workers.preprocessing import PixelType


def write_splits(
    splits: Mapping[str, SourceSplit],
    shape: Shape,
    bits: Literal[8, 16] | None,
    folder: Path,
    advance: Callable[[int], None],
) -> DecodingRecord:
    """Write the arrays and details of all splits into a folder; return what was read.

    Args:
        splits: by their names.
        shape: (C, H, W) of every image.
        bits: of a pixel; None = 16 where any image has 16-bit greys.
        folder: to write into.
        advance: is told how many images more are decoded; less than 0 where these will be decoded again.
    """

    def write(pixel_type: PixelType, kept: KeptBlocks, advance: Callable[[int], None]) -> DecodingRecord:
        return _write_as(splits, ImageLayout(shape, pixel_type), folder, kept, advance)

    return at_their_depth(bits, advance, write)


def _write_as(
    splits: Mapping[str, SourceSplit],
    layout: ImageLayout,
    folder: Path,
    kept_blocks: KeptBlocks,
    advance: Callable[[int], None],
) -> DecodingRecord:
    record = DecodingRecord(sum(len(split.labels) for split in splits.values()))
    for name, split in splits.items():
        blocks = kept_blocks(split.blocks(layout.pixel_type))
        kept = write_images(folder / f"{name}_images.npy", split, blocks, layout, record, advance)
        np.save(folder / f"{name}_labels.npy", split.labels[kept])
        if split.details is not None:
            details = details_to_dict(split.details.at(kept))
            (folder / f"{name}_details.json").write_text(json.dumps(details))
    return record


def write_images(
    file: Path,
    split: SourceSplit,
    blocks: Iterator[Block],
    layout: ImageLayout,
    record: DecodingRecord,
    advance: Callable[[int], None],
) -> Positions:
    """Write a split's images as one .npy file, (N, C, H, W), block by block; return which could be read.

    Plain writes, because a full disk under a memory map kills the process instead of raising an error.
    """
    kept: list[Positions] = []
    with file.open("wb") as out:
        _write_header(out, len(split.labels), layout)
        at = 0
        for block in blocks:
            out.write(np.ascontiguousarray(block.images).data)
            places = record.add(block, at, split.details)
            kept.append(places)
            at += block.looked_at
            advance(block.looked_at)
        positions = np.concatenate(kept) if kept else np.arange(0)
        out.seek(0)
        _write_header(out, len(positions), layout)  # of the same length, see numpy.lib.format
        out.flush()
        os.fsync(out.fileno())
    return positions


def _write_header(out: BinaryIO, count: int, layout: ImageLayout) -> None:
    header = {"descr": np.dtype(layout.pixel_type).str, "fortran_order": False, "shape": (count, *layout.shape)}
    np.lib.format.write_array_header_1_0(out, header)
