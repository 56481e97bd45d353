"""Picking: verify the best network on the device, and evaluate it on the test split once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from search.budget import Budget
from search.pricing.pricer import Target
from search.results.paired import as_good_and_cheaper
from search.results.picking.testing import tested
from search.results.picking.verification import MEASURED_MOST, Standing, comparable, verify
from search.results.ranking import best, rows_on
from search.results.remarks import Seen, seen_by
from search.results.trained_files import trained_files
from search.store import reader
from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from space.deployed import DeployedCondenseNet
from space.errors import MeasurementFailed, NothingFeasible
from workers.export.model_files import save_for
from workers.export.onnx import check_onnx
from workers.file_names import MODEL, file_for
from workers.files import file_hash
from workers.latency.measurement import FailedMeasurement, Measurement
from workers.latency.record import LatencyPurpose
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

    If a network turns out to be over the budget, the next one is taken; `picking.verification` says when.

    Raises:
        NothingFeasible: no network fits, or none passes the verification.
        CheckpointCorrupt: the files of the chosen network are gone or damaged.
    """
    device = targets[0].name
    ranked = best(rows_on(study, store.trials(), device), budget)
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
        (trial,) = rows_on(study, [tested(store, study, row, model, cache)], device)
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
