"""The preview of a bundle, before `pick`: the recorded files, with texts that say which checks are still to be done.

It only reads: nothing is measured or tested, nothing is written into the database, and torch isn't loaded. So any
trained network can be tried out without using its test split.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from typing import IO

import sqlalchemy as sa

from search.budget import Budget, refusal
from search.results.bundle.deploy_file import deploy_toml
from search.results.bundle.facts import CARD_FILE, DEPLOY_FILE, INFER_FILE, BundleFacts, infer_program
from search.results.bundle.model_card import model_card
from search.results.picking.verification import shown_of
from search.results.plain_text import one_line, safe_name
from search.results.remarks import seen_by
from search.results.trained_files import TRAINED, read_trained, recorded_files
from search.store import reader
from search.store.connection.printed_commands import database_words
from search.store.rows import StudyRow, TrialRow
from search.store.vocabulary import TrialState
from workers.bundled.reading import SUMS_FILE, sums_of
from workers.file_names import NETWORK_FILE, ONNX_FILE
from workers.latency.record import LatencyRecord

WRITTEN = (1980, 1, 1, 0, 0, 0)  # the time of every file, so that the same facts make the same zip


def preview_bundle(engine: sa.Engine, study: StudyRow, row: TrialRow, budget: Budget) -> bytes:
    """Return the zip that `write_preview` writes; it takes as much memory as the files."""
    content = io.BytesIO()
    write_preview(engine, study, row, budget, content)
    return content.getvalue()


def write_preview(engine: sa.Engine, study: StudyRow, row: TrialRow, budget: Budget, out: IO[bytes]) -> None:
    """Write a zip of a finished trial's bundle, as far as it can be made of what is recorded.

    It holds a folder with model.onnx, network.safetensors, deploy.toml, MODEL_CARD.md, infer.py and SHA256SUMS. The
    model file of another runtime than onnxruntime, the sample images and the front's picture are made by `pick` alone.
    One file at a time is held in memory; `out` can be any file.

    Raises:
        TrialNotReady: it has not finished. CheckpointCorrupt: a file is gone or was replaced; `out` is then incomplete.
    """
    recorded_files(engine, row)  # raises before anything is written if a file is missing
    facts, folder = _facts(engine, study, row, budget), bundle_name(study, row)
    sums = {}
    with zipfile.ZipFile(out, "w") as archive:

        def write(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}", WRITTEN), content)
            sums[name] = hashlib.sha256(content).hexdigest()

        for name in TRAINED:  # weights don't compress
            write(name, read_trained(engine, row, name))
        write(DEPLOY_FILE, deploy_toml(facts).encode())
        write(CARD_FILE, model_card(facts).encode())
        write(INFER_FILE, infer_program().encode())
        write(SUMS_FILE, sums_of(sums).encode())


def bundle_name(study: StudyRow, row: TrialRow) -> str:
    """Return a name for the bundle's folder and file that every system takes, whatever the study is called."""
    return f"{safe_name(study.name) or 'study'}-trial-{row.number}"


def _facts(engine: sa.Engine, study: StudyRow, row: TrialRow, budget: Budget) -> BundleFacts:
    over = refusal(budget, row.macs, row.params, row.latency, row.others)
    if over is None and budget.max_latency_ms is not None and row.latency is None:
        over = "its latency is unknown"
    inside = f"inside the budget ({budget})" if over is None else f"not inside the budget ({budget}): {over}"
    done = reader.count_states(engine, study.id).get(TrialState.DONE, 0)
    latencies, recorded = latencies_shown(engine, row), reader.read_artifacts(engine, row.id)
    first = None if row.latency is None else latencies.pop(row.latency.target, None)
    return BundleFacts(
        study=study,
        trial=row,
        budget=budget,
        model_sha256={ONNX_FILE: str(recorded[ONNX_FILE]["sha256"])},
        network_sha256=str(recorded[NETWORK_FILE]["sha256"]),
        shipped=frozenset((*TRAINED, DEPLOY_FILE, CARD_FILE, INFER_FILE, SUMS_FILE)),
        rank=f"one of\n{done} trained networks, {one_line(inside)}",
        latency=first,
        elsewhere=latencies,
        seen=seen_by(engine, study, row),
        test_evaluations=reader.count_test_evaluations(engine, study.id),
        database=tuple(database_words(engine.url)),
    )


def latencies_shown(engine: sa.Engine, row: TrialRow) -> dict[str, LatencyRecord]:
    """Return by device the verification that `pick` shows, or where there is none the newest price."""
    by_device: dict[str, list[LatencyRecord]] = defaultdict(list)
    for latency in reader.read_latencies(engine, row.id):  # oldest first
        by_device[latency.target].append(latency)
    return {target: _shown(latencies) for target, latencies in by_device.items()}


def _shown(latencies: Sequence[LatencyRecord]) -> LatencyRecord:
    verified = [latency for latency in latencies if latency.verified]
    return shown_of(verified) if verified else latencies[-1]
