"""Images of one split that are nearly the same as one of another, found by a perceptual hash.

The hash of an image are 64 comparisons of neighbours in its 8 x 9 means of brightness ("dHash", N. Krawetz, "Kind of
Like That", 2013). Images whose hashes differ in few bits are compared pixel by pixel, so that plain pictures, of which
many have the same hash, aren't taken for each other. Of those not all pairs are compared, so what is found may be too
few, which is then said; exact copies are found first, by a digest of their pixels, and never too few.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workers.images.data_info import Published
from workers.images.source import BLOCK, Images
from workers.images.splits import Positions
from workers.settings import DataSettings
from workers.wording import agreeing, one_line

Hashes = npt.NDArray[np.uint64]  # (N,)

MOST_BITS = 4  # of 64 that differ between hashes of nearly the same picture
MOST_DIFFERENCE = 8 / 255  # of the way from black to white, the mean over pixels once both are equally bright
MOST_COMPARISONS = 4 * 10**9  # of hashes; a few seconds. With more images only equal hashes are compared
MOST_CANDIDATES = 8  # that are compared pixel by pixel, for each image
_AT_ONCE = 1 << 22  # comparisons of hashes in memory


class Pictures(NamedTuple):
    """A published split's images: two hashes of each, and a function that returns the image at a place, (C, H, W)."""

    hashes: Hashes  # (M,), alike where the pictures are
    digests: Hashes  # (M,), equal where all pixels are
    image_at: Callable[[int], Images]

    @classmethod
    def of(cls, images: Images) -> Pictures:
        """Return an array of images, (M, C, H, W), as pictures."""
        blocks, nothing = [images[at : at + BLOCK] for at in range(0, len(images), BLOCK)], np.empty(0, dtype=np.uint64)
        hashes, digests = ([nothing, *map(of_block, blocks)] for of_block in (hashes_of, digests_of))
        return cls(np.concatenate(hashes), np.concatenate(digests), images.__getitem__)


class Part(NamedTuple):
    """A split: the pictures that were published with it, the places of those that are in it, and their files' names."""

    pictures: Pictures
    places: Positions  # (N,)
    names: tuple[str, ...]  # (N,)


def notes_on_splits(
    published: Published, settings: DataSettings, train: Pictures, test: Pictures | None, scale: float
) -> list[str]:
    """Return what is to be said of images of a user's own that are in two splits; `scale`: see `nearly_in`."""
    details, places = published.details, published.places(settings)
    if details is None:
        return []
    own = {"train": places.train, "validation": places.validation}
    own |= {} if places.test is None else {"test": places.test}
    parts = {name: Part(train, at, details.at(at).names) for name, at in own.items()}
    if test is not None and published.test_details is not None:
        parts["test"] = Part(test, np.arange(len(test.hashes)), published.test_details.names)
    return notes_on(parts, scale)


def notes_on(parts: Mapping[str, Part], scale: float) -> list[str]:
    """Return what is to be said of splits that share pictures, the training split first; `scale`: see `nearly_in`."""
    said = []
    for (name, part), (later_name, later) in combinations(parts.items(), 2):
        pairs, is_all = nearly_in(later, part, scale)
        kind = "training" if name == "train" else name
        if pairs:
            first, like = one_line(later.names[pairs[0][0]]), one_line(part.names[pairs[0][1]])
            said.append(
                f"{'' if is_all else 'at least '}{len(pairs):,} of {len(later.places):,} {later_name} images "
                f"{agreeing(len(pairs), 'is', 'are')} nearly the same as a {kind} image ({first} is like {like}), so "
                "accuracies look better than they are; take them out, or keep them together with data.group"
            )
        elif not is_all:
            said.append(
                f"no {later_name} image was found to be nearly the same as a {kind} image, but so many look alike that "
                "not all of them were compared"
            )
    return said


def hashes_of(images: Images) -> Hashes:
    """Return the hash of each image, (N, C, H, W)."""
    grey = images.mean(axis=1, dtype=np.float32)  # (N, H, W)
    for axis, boxes in ((1, 8), (2, 9)):
        size = grey.shape[axis]
        if size < 2 * boxes:  # so that no box is empty, and neighbours don't share a pixel
            grey = np.repeat(grey, -(-2 * boxes // size), axis=axis)
            size = grey.shape[axis]
        edges = np.linspace(0, size, boxes + 1).round().astype(np.int64)
        sums = np.add.reduceat(grey, edges[:-1], axis=axis)
        widths = np.diff(edges).reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
        grey = sums / widths.astype(np.float32)
    bits = grey[:, :, 1:] > grey[:, :, :-1]  # (N, 8, 8)
    packed: Hashes = np.packbits(bits.reshape(len(images), 64), axis=1).view(np.uint64)[:, 0]
    return packed


def digests_of(images: Images) -> Hashes:
    """Return a hash of all pixels of each image, (N, C, H, W)."""
    digests = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


class _Candidates(NamedTuple):
    """Which images of another split one may be nearly the same as."""

    place: int  # in its split
    near: list[int]  # in the other split, the likeliest first
    is_all: bool  # whether there are no others


def nearly_in(part: Part, other: Part, scale: float = 255.0) -> tuple[list[tuple[int, int]], bool]:
    """Return for each image of `part` that is nearly one of `other` both places, and whether these are all.

    `scale`: how much brighter white is than black. Places are (in `part`, in `other`).
    """
    exact = _equal(part.pictures.digests[part.places], other.pictures.digests[other.places])
    pairs = {candidates.place: candidates.near[0] for candidates in exact}
    rest = np.setdiff1d(np.arange(len(part.places)), np.fromiter(pairs, dtype=np.int64, count=len(pairs)))
    mine, theirs = part.pictures.hashes[part.places[rest]], other.pictures.hashes[other.places]
    is_all = len(mine) * len(theirs) <= MOST_COMPARISONS
    for position, near, is_complete in _near(mine, theirs) if is_all else _equal(mine, theirs):
        image = part.pictures.image_at(int(part.places[rest[position]]))
        for candidate in near:
            like = other.pictures.image_at(int(other.places[candidate]))
            if _difference(image, like) <= MOST_DIFFERENCE * scale:
                pairs[int(rest[position])] = candidate
                break
        else:
            is_all = is_all and is_complete
    return sorted(pairs.items()), is_all


def _equal(mine: Hashes, theirs: Hashes) -> Iterator[_Candidates]:
    """Yield which of `theirs` are equal to each of `mine`, where there are some."""
    order = np.argsort(theirs, kind="stable")
    first, behind = (np.searchsorted(theirs[order], mine, side=side) for side in ("left", "right"))
    for index in np.flatnonzero(first < behind).tolist():
        near = order[first[index] : min(behind[index], first[index] + MOST_CANDIDATES)]
        yield _Candidates(index, near.tolist(), len(near) == behind[index] - first[index])


def _near(mine: Hashes, theirs: Hashes) -> Iterator[_Candidates]:
    """Yield which of `theirs` differ from each of `mine` in few bits, the nearest first, where there are some."""
    if not len(theirs):
        return
    rows = max(1, _AT_ONCE // len(theirs))
    for start in range(0, len(mine), rows):
        distances = np.bitwise_count(mine[start : start + rows, None] ^ theirs[None, :])
        for row in np.flatnonzero(distances.min(axis=1) <= MOST_BITS):
            near = np.flatnonzero(distances[row] <= MOST_BITS)
            nearest = near[np.argsort(distances[row, near], kind="stable")[:MOST_CANDIDATES]]
            yield _Candidates(start + int(row), nearest.tolist(), len(nearest) == len(near))


def _difference(one: Images, other: Images) -> float:
    """Return how much two images, (C, H, W), differ on average once both are equally bright."""
    difference = one.astype(np.float32) - other.astype(np.float32)
    return float(np.abs(difference - difference.mean()).mean())
