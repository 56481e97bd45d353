"""Writing the bundle of a picked network.

A bundle is a folder: the network's file for each runtime that it was judged by (and `model.onnx` always),
`network.safetensors`, `deploy.toml` (what a program on the device must know), `infer.py` (such a program), `samples/`
(images with the outputs to expect), `MODEL_CARD.md` with `front.svg` (what a person wants to know), and `SHA256SUMS`.
Every figure in it belongs to the exported network.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.results.bundle.deploy_file import deploy_toml
from search.results.bundle.export import pixel_input
from search.results.bundle.facts import (
    BUNDLE_FILES,
    CARD_FILE,
    DEPLOY_FILE,
    INFER_FILE,
    PICTURE_FILE,
    BundleFacts,
    infer_program,
    preprocessing_of,
)
from search.results.bundle.model_card import model_card
from search.results.bundle.options import USUAL, BundleOptions
from search.results.bundle.samples import validation_samples, write_samples
from search.results.paired import best_words
from search.results.picking.picked import Picked
from search.results.plain_text import one_line
from search.results.quantizing import RoundedFile, left_in_float, quantize_trial, write_rounded
from search.store import reader
from search.store.rows import StudyRow
from search.store.store import StudyStore
from space.errors import BundleDamaged, FileInTheWay, ReadOnlyFolder
from workers.bundled.reading import SAMPLES, SUMS_FILE, files_in, listed_files, sums_text
from workers.export.model_files import HALF_RUNTIMES, check_for, save_for
from workers.export.pixels import PixelInput
from workers.file_names import MODEL, ONNX_FILE, SPLITS_FILE, file_for, stem_for
from workers.files import STDOUT, disk_errors, file_hash
from workers.latency.agent.runtimes import installed_runtimes
from workers.training.trial import load_network


def check_bundle_folder(out: Path, force: bool = True) -> Path:
    """Return the folder that a bundle will be written to, behind any symbolic link, before anything is measured for it.

    Raises:
        FileInTheWay: it holds a bundle, and without `force` it stays.
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
        if not force and folder.exists() and any(folder.iterdir()):
            raise FileInTheWay(f"{out} holds a bundle already; name another folder, or replace it with --force.")
    return folder


def _may_be_replaced(path: Path) -> bool:
    """Whether this is an empty folder, or one that holds a bundle and nothing else."""
    if not path.is_dir():
        return False
    names = {file.relative_to(path).as_posix() for file in files_in(path)}
    if SUMS_FILE in {one.name for one in path.iterdir()}:
        try:
            return names <= listed_files(path).keys()
        except BundleDamaged:
            return False
    return not names or (DEPLOY_FILE in names and names <= BUNDLE_FILES)


def write_bundle(
    store: StudyStore,
    study: StudyRow,
    picked: Picked,
    out: Path,
    cache: Path,
    options: BundleOptions = USUAL,
) -> Path:
    """Write the bundle folder completely or not at all; an earlier bundle there is replaced.

    Args:
        store: the study of the network.
        study: its row.
        picked: the network.
        out: the folder.
        cache: the folder of decoded images, which the samples come from.
        options: what the bundle holds.

    Raises:
        InvalidSettings: with `options.bake`, see `pixel_input`.
        ReadOnlyFolder: `out` can't be written, or holds something else than a bundle.
    """
    out = check_bundle_folder(out)
    pixels = pixel_input(study, picked.trial) if options.bake else None
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            new = Path(temporary) / "bundle"
            new.mkdir()
            hashes, rounded = _write_models(store, study, picked, pixels, new, cache, options.every_format)
            if (splits := picked.files[0].parent.parent / SPLITS_FILE).is_file():  # among the study's files
                shutil.copyfile(splits, new / SPLITS_FILE)
            if options.picture is not None:
                (new / PICTURE_FILE).write_text(options.picture, encoding="utf-8")
            shipped = frozenset(path.name for path in new.iterdir())
            facts = replace(_facts(study, picked, hashes, shipped, rounded), in_model=options.bake)
            _write_samples(study, cache, options.samples, facts, new)
            facts = replace(facts, shipped=frozenset(path.name for path in new.iterdir()))
            (new / DEPLOY_FILE).write_text(deploy_toml(facts), encoding="utf-8")
            (new / CARD_FILE).write_text(model_card(facts), encoding="utf-8")
            (new / INFER_FILE).write_text(infer_program(), encoding="utf-8")
            (new / SUMS_FILE).write_text(sums_text(new), encoding="utf-8")
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


def _write_samples(study: StudyRow, cache: Path, count: int, facts: BundleFacts, folder: Path) -> None:
    """Write the sample images, with the outputs of every model file; nothing where the images are gone."""
    rules = preprocessing_of(facts).table()
    known = bool((study.data_info or {}).get("std"))  # a study that was never launched doesn't know its images
    images = validation_samples(study, cache, count, rules) if count and known else []
    if images:
        write_samples(folder / SAMPLES, images, [folder / name for name in facts.model_sha256], rules)


def _write_models(
    store: StudyStore,
    study: StudyRow,
    picked: Picked,
    pixels: PixelInput | None,
    folder: Path,
    cache: Path,
    every_format: bool,
) -> tuple[dict[str, str], dict[str, RoundedFile]]:
    """Write the network and its file for every runtime that measured it, checked.

    With `every_format` it is written for every runtime that is installed here: only a file that ran is shipped. A
    network that was picked in 8 or 16 bits has its files in these alone, as no other was measured and tested.

    Returns:
        The model files' SHA-256 by their names, and those in 8 or 16 bits by the same.
    """
    more = installed_runtimes().keys() if every_format else set[str]()
    shutil.copyfile(picked.files[1], folder / picked.files[1].name)
    if picked.shipped is not None:
        return _write_rounded(store, study, picked, pixels, folder, cache, more)
    runtimes = {"onnxruntime", *(latency.runtime for latency in (picked.verified, *picked.elsewhere.values())), *more}
    hashes = {ONNX_FILE: str(reader.read_artifacts(store.engine, picked.trial.id)[ONNX_FILE]["sha256"])}
    if pixels is None:
        shutil.copyfile(picked.files[0], folder / ONNX_FILE)
        runtimes.remove("onnxruntime")
    for runtime in sorted(runtimes):
        network, path = load_network(folder, picked.trial.config), folder / file_for(runtime, MODEL)
        hashes[path.name] = save_for(runtime, network, path, pixels)
        check_for(runtime, path, network, pixels)
    return hashes, {}


def _write_rounded(
    store: StudyStore,
    study: StudyRow,
    picked: Picked,
    pixels: PixelInput | None,
    folder: Path,
    cache: Path,
    more: Collection[str],
) -> tuple[dict[str, str], dict[str, RoundedFile]]:
    hashes, files = {}, {}
    precision = picked.precision
    able = more if precision == "int8" else set(HALF_RUNTIMES) & set(more)
    for runtime in sorted({*picked.rounded, *able}):
        path = folder / file_for(runtime, stem_for(precision))
        file = picked.rounded.get(runtime)
        if file is None:
            file = quantize_trial(store, study, store.trial(picked.trial.number), cache, runtime, path)
        hashes[path.name], files[path.name] = write_rounded(file, path, pixels), file
    return hashes, files


def _worth(file: RoundedFile, picked: Picked, is_retrained: bool) -> dict[str, Any]:
    """Return what a file in 8 or 16 bits is worth; the first device's alone is tested."""
    shipped = picked.shipped is not None and file.runtime == picked.shipped.runtime
    validated = {
        "validation_top1": file.top1,
        "fp32_validation_top1": file.fp32_top1,
        "points_lost": file.lost_points,
    }
    return {
        **({} if is_retrained else validated),  # it has learned from these images
        **({"test_top1": picked.test_top1} if shipped else {}),
        "fine_tuned": file.fine_tuned,
        "left_in_float": left_in_float(file),
    }


def _facts(
    study: StudyRow,
    picked: Picked,
    hashes: Mapping[str, str],
    shipped: frozenset[str],
    rounded: Mapping[str, RoundedFile],
) -> BundleFacts:
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
        reasons=picked.reasons,
        as_good=picked.as_good,
        latency=picked.verified,
        elsewhere=picked.elsewhere,
        test_evaluations=picked.test_evaluations,
        export_difference=picked.export_difference,
        passed_over=picked.passed_over,
        rounded={name: _worth(file, picked, picked.retrains is not None) for name, file in rounded.items()},
        model=ONNX_FILE if picked.shipped is None else file_for(picked.shipped.runtime, stem_for(picked.precision)),
        undecided=picked.undecided,
    )
