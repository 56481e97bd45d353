"""Fits and calibrations: what a device's measurements say about latency."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.common import AsJson, Storage, database_url, output, say, show_text
from space.errors import InvalidSettings
from workers.wording import counted

if TYPE_CHECKING:
    import sqlalchemy as sa

    from search.settings import StudySettings
    from workers.latency.measurement import LatencyProbe

Runtime = Annotated[str, typer.Option(help="Runtime to measure with: onnxruntime, ncnn, litert or native.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of each run.")]
Networks = Annotated[int, typer.Option(min=0, help="Number of sampled networks to measure first.")]
Preset = Annotated[str, typer.Option(help="Search space to sample them from: digits, cifar or imagenet-mobile.")]
Policy = Annotated[str, typer.Option(help="How thoroughly to measure: standard or quick.")]


def fit(
    name: Annotated[str, typer.Argument(help="The device: host, virtual:PROFILE or a queue.")],
    networks: Networks = 0,
    preset: Preset = "cifar",
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    policy: Policy = "standard",
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Fit the latency predictor to a device's measurements; show its error by cross-validation."""
    from dashboards.terminal import device_tables
    from search.pricing.device_fit import fit_device
    from search.pricing.targets import kind_on
    from search.store.connection.database import open_for_writing

    engine = open_for_writing(database_url(storage))
    probe = _measured(engine, name, _settings(name, preset, runtime, threads, policy), networks, storage)
    device_fit = fit_device(engine, probe, threads, kind_on(name, engine))
    output(as_json, device_tables.fit_document, device_tables.fit_panel, device_fit)


def calibrate(
    name: Annotated[str, typer.Argument(help="The device: host or a queue.")],
    out: Annotated[Path, typer.Option(help="The profile to write, a JSON file.")],
    networks: Networks = 0,
    preset: Preset = "cifar",
    runtime: Runtime = "onnxruntime",
    policy: Policy = "standard",
    storage: Storage = None,
) -> None:
    """Fit a profile for estimates to a device of yours, from 8 or more networks measured on it."""
    from dashboards.terminal import device_tables
    from search.pricing import device_fit
    from search.store.connection.database import open_for_writing
    from workers.latency.emulated.virtual_arm import VirtualArm, default_folder
    from workers.latency.profiles import VIRTUAL, check_writable, save_profile

    profile_name = check_writable(out)
    if name.startswith(VIRTUAL):
        raise InvalidSettings("a profile is calibrated from measurements, but a virtual device has estimates only.")
    arm = VirtualArm(default_folder())
    engine = open_for_writing(database_url(storage))
    probe = _measured(engine, name, _settings(name, preset, runtime, 1, policy), networks, storage)
    profile = device_fit.calibrate(engine, probe, arm, profile_name, say)
    save_profile(profile, out)
    show_text(device_tables.profile_panel(profile, out))


def _settings(name: str, preset: str, runtime: str, threads: int, policy: str) -> StudySettings:
    """Return a study's settings with this one device, as the probes need them."""
    import tomllib

    from search.study_file import settings_from
    from search.study_template import study_file

    document = tomllib.loads(study_file(preset, "devices"))
    document["latency"] = {"devices": [name], "runtime": runtime, "threads": threads, "policy": policy}
    document.pop("budget", None)
    return settings_from(document, "the command line")


def _measured(
    engine: sa.Engine, name: str, settings: StudySettings, networks: int, storage: str | None
) -> LatencyProbe:
    """Return the device's probe, after measuring this many sampled networks with it."""
    from search.devices.probe import CALIBRATING
    from search.pricing.device_fit import measure_more
    from search.pricing.targets import Probes
    from search.reachability import budget_space
    from search.study_folders import files_root

    files = files_root(settings, database_url(storage))
    files.mkdir(parents=True, exist_ok=True)
    probe = Probes(settings, engine, files, say, CALIBRATING).on(name)
    if networks:
        for done in measure_more(engine, probe, budget_space(settings), networks, files):
            unsteady = f" ({done.unsteady} not steady, which a fit leaves out)" if done.unsteady else ""
            failed = f", {done.failed} failed" if done.failed else ""
            say(f"{done.recorded} of {counted(networks, 'network')} measured{unsteady}{failed}")
    return probe
