"""What is searched: one study file for all three searches, and how far each of them goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search.data_fit import fit_to_data
from search.settings import StudySettings
from search.study_file import load_settings
from search.study_folders import cache_folder
from workers.images.cache import prepare

PLAIN, GATED, OURS = "plain", "gated", "ours"
TITLES = {
    PLAIN: "Optuna's TPE, plain loop",
    GATED: "the same behind the gate",
    OURS: "condensery launch",
}
DATABASE = "condensery.db"  # of our studies, in the work folder

# The space and the limit are those that `condensery init --preset digits` writes.
_STUDY_FILE = """format = 1

[study]
name = "seed-{seed}"
trainings = {trainings}
seed = {seed}

[data]
{data}

[space]
groups = [1, 2, 4]
condense_factor = [2, 4]
bottleneck = [1, 2, 4]
num_stages = [2, 3]
layers = {{ low = 1, high = 4 }}
growth = [4, 8, 12, 16]

[training]
epochs = {epochs}
batch_size = 64

[budget]
max_macs = {max_macs}

[latency]
{latency}

[search]
batch = {batch}  # candidates priced together: the emulator takes seconds to start
"""


@dataclass(frozen=True)
class Form:
    """How large the benchmark is."""

    data: str  # of the study file
    latency: str
    epochs: int
    max_macs: int
    batch: int
    seeds: int
    trainings: int  # of each search by launch
    peer_trainings: int  # of each search by a peer
    same: int  # networks that both loops train, for the trainings' own speed

    def study_file(self, seed: int) -> str:
        """Return the study file of one seed."""
        return _STUDY_FILE.format(seed=seed, **{name: getattr(self, name) for name in _IN_FILE})


_IN_FILE = ("trainings", "data", "epochs", "max_macs", "latency", "batch")

WHOLE = Form(
    data='dataset = "fashion-mnist"\nimage_size = 14\nimages = 3000\nvalidation_fraction = 0.3333',
    latency='devices = ["virtual:raspberry-pi-5"]\nruntime = "native"',
    epochs=4,
    max_macs=600_000,
    batch=4,
    seeds=3,
    trainings=60,
    peer_trainings=60,
    same=4,
)
SMALL = Form(
    data='dataset = "digits"',
    latency='devices = ["host"]\npolicy = "quick"',
    epochs=2,
    max_macs=200_000,
    batch=4,
    seeds=1,
    trainings=8,
    peer_trainings=8,
    same=1,
)


def file_of(work: Path, seed: int) -> Path:
    """Return the path of one seed's study file."""
    return work / f"study-{seed}.toml"


def prepared_settings(work: Path, seed: int) -> StudySettings:
    """Return a seed's settings for the images at hand, which are decoded once, for all searches, if they aren't yet."""
    settings = load_settings(file_of(work, seed), ())
    info = prepare(settings.data, images_of(work, settings))
    return fit_to_data(settings, info)


def images_of(work: Path, settings: StudySettings) -> Path:
    """Return the folder of the decoded images; it is the one that `launch` uses."""
    return cache_folder(settings, f"sqlite:///{work / DATABASE}")
