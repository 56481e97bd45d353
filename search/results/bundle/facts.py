"""The facts that the texts of a bundle state, and the names of its files.

The texts state what is recorded and nothing else; checks that are still to be done (a second measurement, the test) are
named as plainly as those that were done. Names come from users and devices: each becomes one harmless line or one
quoted string.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from search.budget import Budget
from search.results.plain_text import one_line
from search.results.remarks import NOTHING_SEEN, Seen
from search.store.rows import StudyRow, TrialRow
from workers.bundled.reading import DEPLOY_FILE as DEPLOY_FILE  # also for importers
from workers.file_names import MODEL, NETWORK_FILE, ONNX_FILE, SPLITS_FILE, SUFFIXES, Runtime, file_for
from workers.latency.record import LatencyRecord
from workers.metrics import Predictions
from workers.preprocessing import Preprocessing

CARD_FILE, INFER_FILE, PICTURE_FILE = "MODEL_CARD.md", "infer.py", "front.svg"
WEIGHTS = "weights"  # the table of deploy.toml on the network as torch reads it
# Of a bundle without SHA256SUMS, which the first version lacks.
BUNDLE_FILES = {ONNX_FILE, NETWORK_FILE, DEPLOY_FILE, CARD_FILE, INFER_FILE, SPLITS_FILE} | {
    MODEL + suffix for suffix in SUFFIXES.values()
}


@dataclass(frozen=True)
class BundleFacts:
    """The facts in the texts, which also name what is unknown (None) or was not done."""

    study: StudyRow
    trial: TrialRow
    budget: Budget
    model_sha256: Mapping[str, str]  # of each model file in the bundle, by its name
    network_sha256: str  # of network.safetensors
    shipped: frozenset[str]  # names of the files in the bundle
    rank: str  # how the network compares to others: the end of the card's first sentence
    latency: LatencyRecord | None  # on the study's first device
    elsewhere: Mapping[str, LatencyRecord] = field(default_factory=dict)  # on its further devices, by name
    seen: Seen = NOTHING_SEEN  # what the network said of the images
    reasons: tuple[str, ...] = ()  # why it was picked
    as_good: tuple[str, ...] = ()  # cheaper networks that are as good within noise
    test_evaluations: int = 0  # networks of this study ever evaluated on the test split, this one included
    export_difference: float | None = None
    passed_over: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    rounded: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # worth of files in 8 or 16 bits, by name
    model: str = ONNX_FILE  # the file that the figures are of, which infer.py runs
    in_model: bool = False  # whether the model files scale pixels themselves
    database: tuple[str, ...] = ()  # the words that name it in a command

    @property
    def retrains(self) -> str | None:
        """The study and trial that its network was chosen as, before it learned from the validation images too."""
        retrains: str | None = self.study.settings.get("study", {}).get("retrains")
        return retrains

    @property
    def splits(self) -> Mapping[str, Predictions]:
        """What it said of the splits that it has not learned from, by the split's name."""
        return {name: one for name, one in self.seen.splits.items() if self.retrains is None or name != "validation"}

    @property
    def verified(self) -> bool:
        """Whether the trained file was measured or estimated on every device, and held to the budget there."""
        latencies = (self.latency, *self.elsewhere.values())
        return not self.undecided and all(latency is not None and latency.verified for latency in latencies)

    @property
    def verified_by(self) -> str:
        """What the trained file was verified by: "measured on host:amd-epyc"; "" where it wasn't."""
        latencies = [latency for latency in (self.latency, *self.elsewhere.values()) if latency is not None]
        return "; ".join(f"{latency.kind} on {one_line(latency.device)}" for latency in latencies) * self.verified

    @property
    def tested(self) -> bool:
        """Whether the network was evaluated on the test split."""
        return self.trial.test_top1 is not None

    @property
    def not_done(self) -> str:
        """The checks that were not done yet and the command that does them, in one line; "" when all are done."""
        missing = ["not verified on the device after training"] * (not self.verified)
        missing += ["not tested"] * (not self.tested)
        command = pick_command(self.study.name, self.budget, self.database)
        command = command if command.isprintable() else one_line(command)  # a name's double spaces must stay
        return f"{', '.join(missing)}: run `{command}`" if missing else ""


def pick_command(study: str, budget: Budget, database: Sequence[str] = ()) -> str:
    """Return the command that verifies, tests and bundles the best network inside a budget.

    `database`: the words that name the database in it.
    """
    limits = [] if budget.max_latency_ms is None else [f"--max-latency-ms {budget.max_latency_ms:g}"]
    limits += [f"--max-latency-ms {shlex.quote(f'{name}={limit:g}')}" for name, limit in budget.elsewhere_ms.items()]
    if limits and budget.latency_statistic != "upper":
        limits.append(f"--latency-statistic {budget.latency_statistic}")
    counts = (("--max-macs", budget.max_macs), ("--max-params", budget.max_params))
    limits += [f"{option} {limit:.0f}" for option, limit in counts if limit is not None]
    sizes = (("--max-file-mb", budget.max_file_mb), ("--max-ram-mb", budget.max_ram_mb))
    limits += [f"{option} {limit:g}" for option, limit in sizes if limit is not None]
    return " ".join(("condensery pick", shlex.quote(study), *map(shlex.quote, database), *limits, "--out bundle"))


def infer_program() -> str:
    """Return infer.py: the program that runs a bundle's network on image files, without the project."""
    return (files("workers.bundled") / INFER_FILE).read_text(encoding="utf-8")


def preprocessing_of(facts: BundleFacts) -> Preprocessing:
    """Return how an image becomes the input of the bundle's model files."""
    return Preprocessing.of(facts.trial.config.input_shape, facts.study.data_info or {}, facts.in_model)


def inputs_of(preprocessing: Preprocessing) -> dict[Runtime, str]:
    """Return the input of a network's file for each runtime: its type and its shape."""
    rules, (channels, height, width) = preprocessing.table(), preprocessing.shape
    planes, last = f"({channels}, {height}, {width})", f"(1, {height}, {width}, {channels})"
    return {
        "onnxruntime": f"{rules['dtype']} (batch, {planes[1:]}",
        "ncnn": f"float32 {planes}",  # it has no other type; the values are those of the pixels
        "litert": f"{rules['dtype']} {last}",
        "native": f"{rules['dtype']} {planes}",
    }


def shipped_file(latency: LatencyRecord, shipped: Collection[str]) -> str:
    """Return the name of the model file that a latency is of; "" where the bundle doesn't ship it."""
    stem = f"{MODEL}.{latency.precision}" if latency.precision != "fp32" else MODEL
    file = file_for(latency.runtime, stem) if latency.runtime in SUFFIXES else ""
    return file if file in shipped else ""
