"""What a run with kills consists of: its study, the processes that may be killed, and the phases they are killed in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

OF_SEARCH = ("pricing", "beginning", "training", "finishing")
OF_DEVICE = ("starting", "waiting", "fetching", "measuring", "uploading")
# The phases of each role: together they are the cells of the table.
# pricing: candidates are measured. beginning: an attempt loads its images and its checkpoint. training: its steps.
# finishing: trained, the result is being exported, checked and recorded. away: PostgreSQL is stopped.
PHASES: dict[str, tuple[str, ...]] = {
    "controller": ("starting", *OF_SEARCH, "away"),
    "stand-by": ("starting", "waiting"),
    "worker": ("idle", "beginning", "training", "finishing", "away"),
    "hub": (*OF_DEVICE, "away"),
    "agent": (*OF_DEVICE, "away"),
    "postgres": ("starting", *OF_SEARCH),
    "ray": OF_SEARCH,
}
CHECKPOINT_EVERY_S = 0.2
Cell = tuple[str, str]  # role, phase
EPOCHS = 30

STUDY = """
format = 1
[study]
name = "digits"
trainings = {trainings}
seed = {seed}
files = "{files}"
[data]
dataset = "digits"
[space]
groups = [1, 2, 4]
condense_factor = [1, 2, 4]
bottleneck = [1, 2]
num_stages = [1, 2]
layers = [1, 2]
growth = [4, 8]
[training]
epochs = {epochs}
batch_size = 64
[latency]
devices = ["{device}"]
policy = "quick"
[engine]
kind = "{engine}"
workers = 2
device = "cpu"
[search]
startup = 4
[limits]
checkpoint_every_s = {every_s}
lost_attempts = 1000
"""


@dataclass(frozen=True)
class Form:
    """The database, the engine and the extra processes of one run."""

    database: Literal["SQLite", "PostgreSQL"] = "SQLite"
    engine: Literal["local", "ray"] = "local"
    devices: bool = False  # latencies by a hub and an agent, else of this host
    stand_by: bool = False  # a second launch waits to take over

    @property
    def name(self) -> str:
        extras = [text for on, text in ((self.devices, "device"), (self.stand_by, "stand-by")) if on]
        return " + ".join([self.database, self.engine, *extras])

    @property
    def roles(self) -> list[str]:
        present = {
            "stand-by": self.stand_by,
            "hub": self.devices,
            "agent": self.devices,
            "postgres": self.database == "PostgreSQL",
            "ray": self.engine == "ray",
        }
        return [role for role in PHASES if present.get(role, True)]

    @property
    def cells(self) -> list[Cell]:
        away = self.database == "PostgreSQL"
        # Ray starts its workers when there is a job for them, and an agent has no business with the database.
        impossible = {("worker", "idle")} if self.engine == "ray" else set()
        pairs = [(role, phase) for role in self.roles for phase in PHASES[role] if away or phase != "away"]
        return [cell for cell in pairs if cell not in impossible]


@dataclass
class Kill:
    """One kill: the role, its phase, and the trainings that it interrupted."""

    role: str
    phase: str
    at: float
    detail: str
    trainings: list[dict[str, Any]] = field(default_factory=list)
    pid: int | None = None  # of the worker that was killed


def as_json(kill: Kill) -> dict[str, Any]:
    """Return a kill as the saved result holds it."""
    values: dict[str, Any] = json.loads(json.dumps(kill.__dict__))
    return values
