"""Picking: verify the best network on the device, evaluate it on the test split once, and write it as a bundle.

A bundle is a folder: `model.onnx`, `network.safetensors`, `deploy.toml` (what a program on the device must know),
`infer.py` (such a program) and `MODEL_CARD.md` (what a person wants to know). Every figure in it belongs to the
exported network.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from search.budget import Budget
from search.pricing.pricer import Target
from search.results.bundle_texts import (
    BUNDLE_FILES,
    CARD_FILE,
    DEPLOY_FILE,
    INFER_FILE,
    MODEL,
    BundleFacts,
    deploy_toml,
    infer_program,
    model_card,
)
from search.results.paired import as_good_and_cheaper, best_words
from search.results.pick import best
from search.results.plain_text import one_line
from search.results.remarks import Seen, seen_by
from search.results.testing import tested
from search.results.trained_files import trained_files
from search.results.verification import MEASURED_MOST, Standing, comparable, verify
from search.store import reader
from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from space.deployed import DeployedCondenseNet
from space.errors import (
    InvalidSettings,
    MeasurementFailed,
    NothingFeasible,
    ReadOnlyFolder,
)
from workers.export.model_files import check_for, save_for
from workers.export.onnx import check_onnx
from workers.export.pixels import PixelInput
from workers.file_names import ONNX_FILE, SPLITS_FILE, SUFFIXES, Runtime, file_for, known_runtime, runtime_of
from workers.files import STDOUT, disk_errors, file_hash, is_replaceable, write_atomically
from workers.latency.measurement import FailedMeasurement, Measurement
from workers.latency.record import LatencyPurpose
from workers.preprocessing import Preprocessing
from workers.training.trial import load_network
from workers.wording import none_of


@dataclass(frozen=True)
class Picked:
    """The network to deploy, with its verification and test."""

    trial: TrialRow
    budget: Budget
    verified: Measurement  # on the study's first device
    elsewhere: dict[str, Measurement]  # on its further devices, by name
    test_top1: float
    seen: Seen  # what it said of the images
    as_good: tuple[str, ...]  # cheaper networks inside the budget that are as good within noise
    test_evaluations: int  # networks of this study ever evaluated on the test split, this one included
    candidates: int  # trained networks inside the budget
    passed_over: tuple[str, ...]  # more accurate networks that failed the verification, each with the reason
    undecided: tuple[str, ...]  # limits that this network could not be held to, because the machine was too busy
    export_difference: float
    files: tuple[Path, Path]  # ONNX and safetensors, checked against their recorded hashes


def pick(store: StudyStore, study: StudyRow, budget: Budget, targets: Sequence[Target], cache: Path) -> Picked:
    """Take the best network inside the budget, measure its exported file again, evaluate it on the test split.

    If a network turns out to be over the budget, the next one is taken; `search.results.verification` says when.

    Raises:
        NothingFeasible: no network fits, or none passes the verification.
        CheckpointCorrupt: the files of the chosen network are gone or damaged.
    """
    ranked = best(store.trials(), budget)
    passed_over: list[str] = []
    for row in ranked:
        if any(entry["removed"] for entry in reader.read_artifacts(store.engine, row.id).values()):
            passed_over.append(f"trial {row.number}'s network was removed by the retention rule")
            continue
        model, weights = trained_files(store.engine, row)
        network = load_network(weights.parent, row.config)
        verified, over, undecided = _verify(store, row, (model, network), targets, budget)
        if over is not None:
            passed_over.append(f"trial {row.number} {over} when measured again")
            continue
        difference = check_onnx(model, network)
        trial = tested(store, study, row, model, cache)
        assert trial.test_top1 is not None
        return Picked(
            trial=trial,
            budget=budget,
            verified=verified.pop(targets[0].name),
            elsewhere=verified,
            test_top1=trial.test_top1,
            seen=seen_by(store.engine, study, trial),
            as_good=as_good_and_cheaper(store.engine, store.study_id, ranked[ranked.index(row) :]),
            test_evaluations=reader.count_test_evaluations(store.engine, store.study_id),
            candidates=len(ranked),
            passed_over=tuple(passed_over),
            undecided=undecided,
            export_difference=difference,
            files=(model, weights),
        )
    raise NothingFeasible(
        f"{none_of(len(ranked), 'network')} stayed inside {budget} when measured again "
        f"({'; '.join(passed_over[:3])}); raise the budget a little."
    )


def _verify(
    store: StudyStore,
    row: TrialRow,
    trained: tuple[Path, DeployedCondenseNet],
    targets: Sequence[Target],
    budget: Budget,
) -> tuple[dict[str, Measurement], str | None, tuple[str, ...]]:
    """Measure the trained (ONNX file, network) on every device of the study, and record what was measured.

    Returns the latencies by device, how one is over the budget (None: none is), and the limits that stay undecided.
    """
    verified: dict[str, Measurement] = {}
    undecided = []
    limits = budget.limits_ms(targets[0].name)
    earlier = [one for one in reader.read_latencies(store.engine, row.id) if one.purpose == LatencyPurpose.VERIFY]
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        for target in targets:
            path = _file_for(target, trained, Path(folder))
            sha256 = file_hash(path) if earlier else ""
            recorded = comparable(
                [one for one in earlier if one.target == target.name and one.model_hash == sha256],
                target.probe.device,
                target.probe.runtime,
            )
            found = verify(partial(_measured, store, row, target, path), recorded, limits.get(target.name))
            verified[target.name] = found.shown
            where = "" if target is targets[0] else f" on {target.name}"
            took = f"took up to {found.shown.interval_high_ms:.4g} ms{where}"
            if found.standing == Standing.OVER:
                return verified, took, ()
            if found.standing == Standing.OPEN:
                undecided.append(f"it {took}, in {MEASURED_MOST} measurements that other work disturbed")
    return verified, None, tuple(undecided)


def _file_for(target: Target, trained: tuple[Path, DeployedCondenseNet], folder: Path) -> Path:
    """Return the file of a trained network for a device's runtime, which is written unless it is the ONNX file."""
    model, network = trained
    if target.probe.runtime == "onnxruntime":
        return model
    path = folder / file_for(target.probe.runtime, MODEL)
    save_for(target.probe.runtime, network, path)
    return path


def _measured(store: StudyStore, row: TrialRow, target: Target, path: Path) -> Measurement:
    """Measure a network's file once on a device; record and return its latency."""
    (result,) = target.probe.measure([path])
    if isinstance(result, FailedMeasurement):
        raise MeasurementFailed(f"trial {row.number} could not be measured on {target.name}: {result.reason}")
    verified = replace(result, target=target.name, purpose=LatencyPurpose.VERIFY)
    store.add_latency(row.number, verified)
    return verified


def pixel_input(study: StudyRow, row: TrialRow) -> PixelInput:
    """Return the input of a trial's network where its model files scale pixels themselves.

    Raises:
        InvalidSettings: the study doesn't know its images yet.
    """
    if not (study.data_info or {}).get("std"):
        raise InvalidSettings(
            "preprocessing can be baked in where the study knows its images' mean and deviation, but this one doesn't; "
            "resume it once."
        )
    return PixelInput.of(Preprocessing.of(row.config.input_shape, study.data_info or {}))


def export_trial(
    store: StudyStore, row: TrialRow, out: Path, runtime: str | None = None, pixels: PixelInput | None = None
) -> Path:
    """Write a finished trial's network for a runtime to `out`, after running what is written; return the path.

    Args:
        store: the trial's study.
        row: the trial.
        out: a file, or a folder that gets model.onnx or what the runtime's files are called.
        runtime: None = as the name of the file says; onnxruntime where it is a folder or no file of its own.
        pixels: what the file scales itself; None = nothing.

    Raises:
        InvalidSettings: the name of the file is another runtime's, or none's.
    """
    target, runtime = export_target(out, runtime)
    _, weights = trained_files(store.engine, row)
    network = load_network(weights.parent, row.config)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        checked = Path(folder) / file_for(runtime, MODEL)
        save_for(runtime, network, checked, pixels)
        check_for(runtime, checked, network, pixels)
        write_atomically(target, checked.read_bytes(), retry="export it again")
    return target


def export_target(out: Path, runtime: str | None) -> tuple[Path, Runtime]:
    """Return the file that `export_trial` writes and the runtime that it is for; raises as it does."""
    if out == STDOUT or (not is_replaceable(out) and not out.is_dir()):
        return out, known_runtime(runtime or "onnxruntime")
    if out.is_dir() or not out.suffix:
        return out / file_for(runtime or "onnxruntime", MODEL), known_runtime(runtime or "onnxruntime")
    named = runtime_of(out)
    if runtime is not None and known_runtime(runtime) != named:
        raise InvalidSettings(f"a file for {runtime} must end in {SUFFIXES[known_runtime(runtime)]}, not as {out}.")
    return out, named


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
