"""Writing the bundle of a picked network.

A bundle is a folder: `model.onnx`, `network.safetensors`, `deploy.toml` (what a program on the device must know),
`infer.py` (such a program) and `MODEL_CARD.md` (what a person wants to know). Every figure in it belongs to the
exported network.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from search.results.bundle.deploy_file import deploy_toml
from search.results.bundle.export import pixel_input
from search.results.bundle.facts import BUNDLE_FILES, CARD_FILE, DEPLOY_FILE, INFER_FILE, BundleFacts, infer_program
from search.results.bundle.model_card import model_card
from search.results.paired import best_words
from search.results.picking.picked import Picked
from search.results.plain_text import one_line
from search.store import reader
from search.store.rows import StudyRow
from search.store.store import StudyStore
from space.errors import ReadOnlyFolder
from workers.export.model_files import check_for, save_for
from workers.export.pixels import PixelInput
from workers.file_names import MODEL, ONNX_FILE, SPLITS_FILE, file_for
from workers.files import STDOUT, disk_errors, file_hash
from workers.training.trial import load_network


def check_bundle_folder(out: Path) -> Path:
    """Return the folder that a bundle will be written to, behind any symbolic link, before anything is measured for it.

    Raises:
        ReadOnlyFolder: it holds something else than a bundle, or is no folder.
    """
    if out == STDOUT:
        raise ReadOnlyFolder("a bundle is a folder and can't be written to standard output; name a folder.")
    with disk_errors(out):
        folder = Path(os.path.realpath(out))
        if folder.exists() and not _may_be_replaced(folder):
            raise ReadOnlyFolder(
                f"{out} exists and holds something else than a bundle; choose an empty or a new folder."
            )
    return folder


def _may_be_replaced(path: Path) -> bool:
    """Whether this is an empty folder, or one that holds a bundle and nothing else."""
    if not path.is_dir():
        return False
    names = {one.name for one in path.iterdir()}
    return not names or (DEPLOY_FILE in names and names <= BUNDLE_FILES)


def write_bundle(store: StudyStore, study: StudyRow, picked: Picked, out: Path, bake: bool = False) -> Path:
    """Write the bundle folder completely or not at all; an earlier bundle there is replaced.

    With `bake` its model files scale pixels themselves.

    Raises:
        InvalidSettings: with `bake`, see `pixel_input`.
        ReadOnlyFolder: `out` can't be written, or holds something else than a bundle.
    """
    out = check_bundle_folder(out)
    pixels = pixel_input(study, picked.trial) if bake else None
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            new = Path(temporary) / "bundle"
            new.mkdir()
            hashes = _write_models(store, picked, pixels, new)
            if (splits := picked.files[0].parent.parent / SPLITS_FILE).is_file():  # among the study's files
                shutil.copyfile(splits, new / SPLITS_FILE)
            shipped = frozenset(path.name for path in new.iterdir())
            facts = replace(_facts(study, picked, hashes, shipped), in_model=bake)
            (new / DEPLOY_FILE).write_text(deploy_toml(facts), encoding="utf-8")
            (new / CARD_FILE).write_text(model_card(facts), encoding="utf-8")
            (new / INFER_FILE).write_text(infer_program(), encoding="utf-8")
            old = Path(temporary) / "old"
            if out.exists():
                out.rename(old)
            try:
                new.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
    return out


def _write_models(store: StudyStore, picked: Picked, pixels: PixelInput | None, folder: Path) -> dict[str, str]:
    """Write the network and its file for every runtime that measured it, checked; return the model files' SHA-256."""
    for path in picked.files:
        shutil.copyfile(path, folder / path.name)
    runtimes = {"onnxruntime", *(latency.runtime for latency in (picked.verified, *picked.elsewhere.values()))}
    hashes = {ONNX_FILE: str(reader.read_artifacts(store.engine, picked.trial.id)[ONNX_FILE]["sha256"])}
    if pixels is None:
        runtimes.remove("onnxruntime")  # its file is among those copied
    for runtime in sorted(runtimes):
        network, path = load_network(folder, picked.trial.config), folder / file_for(runtime, MODEL)
        hashes[path.name] = save_for(runtime, network, path, pixels)
        check_for(runtime, path, network, pixels)
    return hashes


def _facts(study: StudyRow, picked: Picked, hashes: Mapping[str, str], shipped: frozenset[str]) -> BundleFacts:
    budget = one_line(picked.budget)
    return BundleFacts(
        study=study,
        trial=picked.trial,
        budget=picked.budget,
        model_sha256=hashes,
        network_sha256=file_hash(picked.files[1]),
        shipped=shipped,
        rank=(
            f"the {best_words(picked.trial.objective)} of\n{picked.candidates} trained networks inside the budget "
            f"({budget})"
        ),
        seen=picked.seen,
        as_good=picked.as_good,
        latency=picked.verified,
        elsewhere=picked.elsewhere,
        test_evaluations=picked.test_evaluations,
        export_difference=picked.export_difference,
        passed_over=picked.passed_over,
        undecided=picked.undecided,
    )
