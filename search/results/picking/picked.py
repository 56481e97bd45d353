"""Picking: verify the best network on the device, and evaluate it on the test split once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from search.budget import Budget
from search.pricing.pricer import Target
from search.results.paired import as_good_and_cheaper
from search.results.picking.choice import asked_for, ordered
from search.results.picking.on_devices import OnDevices, OverLimit, verify_on_devices
from search.results.picking.testing import tested
from search.results.picking.wish import THE_BEST, Wish
from search.results.points import RoundedFiles
from search.results.quantizing import RoundedFile, tested_file
from search.results.ranking import best, rows_on
from search.results.remarks import Seen, seen_by
from search.results.trained_files import trained_files
from search.results.winning import rows_in
from search.store import reader
from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from space.deployed import DeployedCondenseNet
from space.errors import NothingFeasible
from workers.export.onnx import check_onnx
from workers.file_names import Precision
from workers.latency.measurement import Measurement
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
    reasons: tuple[str, ...]  # why this one: what decided it, the runner-up, and how sure the choice is
    export_difference: float
    files: tuple[Path, Path]  # ONNX and safetensors, checked against their recorded hashes
    retrains: str | None = None  # the study and trial that it was chosen as, before it learned from all images
    rounded: Mapping[str, RoundedFile] = field(default_factory=dict)  # by runtime, where picked in 8 or 16 bits

    @property
    def shipped(self) -> RoundedFile | None:
        """The file in 8 or 16 bits whose figures these are, the first device's; None where it was picked in fp32."""
        return self.rounded.get(self.verified.runtime)

    @property
    def precision(self) -> Precision:
        """What its numbers are."""
        return "fp32" if self.shipped is None else self.shipped.precision

    @property
    def unsteady(self) -> tuple[str, ...]:
        """The devices that did not keep still in any measurement, a sentence for each."""
        measured = (self.verified, *self.elsewhere.values())
        return tuple(
            f"{one.target} did not keep still in any of the measurements, so {one.median_ms:.4g} ms may be too much; "
            "pick again on a quiet machine"
            for one in measured
            if not one.steady
        )


@dataclass(frozen=True)
class Winner:
    """The network that is wanted and keeps its budget on every device, not tested yet."""

    row: TrialRow
    on_devices: OnDevices
    network: DeployedCondenseNet
    files: tuple[Path, Path]  # ONNX and safetensors, checked against their recorded hashes
    ranked: tuple[TrialRow, ...]  # the trained networks inside the budget, best first
    passed_over: tuple[str, ...]
    reasons: tuple[str, ...]
    rounded: Mapping[str, RoundedFile] = field(default_factory=dict)  # by runtime, where wanted in 8 or 16 bits


def find_winner(
    store: StudyStore,
    study: StudyRow,
    budget: Budget,
    targets: Sequence[Target],
    wish: Wish = THE_BEST,
    cache: Path | None = None,
    precision: Precision = "fp32",
) -> Winner:
    """Take the network that is wanted inside the budget and measure its exported file again; none is tested.

    If a network turns out to be over the budget, the next one is taken; `picking.verification` says when. In int8
    or fp16 networks are ranked by their points. Where a network is judged by such a latency, such a file is measured;
    it takes `cache`, the folder of decoded images, to calibrate or to judge it.

    Raises:
        NothingFeasible: no network fits, or none passes the verification.
        TrialNotFound, TrialNotReady: there is no network of the trial that is wanted.
        CheckpointCorrupt: the files of the chosen network are gone or damaged.
    """
    rows = rows_on(study, store.trials(), targets[0].name)
    if precision != "fp32":
        rows = rows_in(precision, study, rows, reader.read_points(store.engine, store.study_id), targets[0].name)
    if wish.trial is not None:
        asked_for(rows, wish.trial, budget)
    ranked = best(rows, budget)
    order = ordered(store.engine, store.study_id, ranked, wish)
    misses: list[tuple[int, OverLimit]] = []
    for row in order.rows:
        if wish.trial not in (None, row.number):
            break
        if any(entry["removed"] for entry in reader.read_artifacts(store.engine, row.id).values()):
            misses.append((row.number, OverLimit(float("inf"), "was removed by the retention rule")))
            continue
        model, weights = trained_files(store.engine, row)
        network = load_network(weights.parent, row.config)
        rounded, judged_in = None, cast(Precision, "fp32" if row.latency is None else row.latency.precision)
        if cache is not None and judged_in != "fp32":
            rounded = RoundedFiles(store, study, store.trial(row.number), cache, judged_in)
        found = verify_on_devices(store, row, (model, network), targets, budget, rounded)
        if found.over is not None:
            misses.append((row.number, found.over))
            continue
        files = {} if rounded is None else rounded.by_runtime
        return Winner(
            row=row,
            on_devices=found,
            network=network,
            files=(model, weights),
            ranked=tuple(ranked),
            passed_over=tuple(f"trial {number} {over.words}" for number, over in misses),
            reasons=(*order.reasons(row, {number for number, _ in misses}), *_words_of(files)),
            rounded=files,
        )
    number, nearest = min(misses, key=lambda miss: miss[1].excess)
    raise NothingFeasible(
        f"{none_of(len(misses), 'network')} stayed inside {budget}; the nearest, trial {number}, {nearest.words}; "
        "raise the budget a little."
    )


def _words_of(files: Mapping[str, RoundedFile]) -> list[str]:
    return [f"in {file.precision} for {runtime}: {file.words}" for runtime, file in files.items()]


def pick(
    store: StudyStore,
    study: StudyRow,
    budget: Budget,
    targets: Sequence[Target],
    cache: Path,
    wish: Wish = THE_BEST,
    precision: Precision = "fp32",
) -> Picked:
    """Take the network of `find_winner`, and evaluate it on the test split, once; raises as `find_winner` does.

    In int8 or fp16 that is the file for the first device; the trained network isn't tested then.
    """
    winner, device = find_winner(store, study, budget, targets, wish, cache, precision), targets[0].name
    judging = winner.rounded.get(targets[0].probe.runtime)
    if judging is None:
        difference = check_onnx(winner.files[0], winner.network)
        (trial,) = rows_on(study, [tested(store, study, winner.row, winner.files[0], cache)], device)
    else:
        difference = judging.written.difference
        trial = tested_file(store, study, winner.row, judging, cache)
    assert trial.test_top1 is not None
    elsewhere = {name: latency for name, latency in winner.on_devices.measured.items() if name != device}
    others = winner.ranked[winner.ranked.index(winner.row) :]
    return Picked(
        trial=trial,
        budget=budget,
        verified=winner.on_devices.measured[device],
        elsewhere=elsewhere,
        test_top1=trial.test_top1,
        seen=seen_by(store.engine, study, trial),
        as_good=as_good_and_cheaper(store.engine, store.study_id, others),
        test_evaluations=reader.count_test_evaluations(store.engine, store.study_id),
        candidates=len(winner.ranked),
        passed_over=winner.passed_over,
        undecided=winner.on_devices.undecided,
        reasons=winner.reasons,
        export_difference=difference,
        files=winner.files,
        rounded=winner.rounded,
    )
