"""What a user wants a bundle to hold; nothing is imported for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BundleOptions:
    """What a bundle holds beside the network for the runtimes that it was judged by."""

    bake: bool = False  # whether its model files scale pixels themselves
    every_format: bool = False  # whether it has the model file of every runtime that is installed here
    samples: int = 6  # images of the validation split
    picture: str | None = None  # the front as SVG


USUAL = BundleOptions()
