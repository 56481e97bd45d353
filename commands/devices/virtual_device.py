"""The virtual device: an ARM device in software that counts instructions, alone or as the agent of a hub."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from commands.common import AsJson, output, say
from space.errors import InvalidSettings, MeasurementFailed
from workers.wording import counted

if TYPE_CHECKING:
    from workers.latency.emulated.virtual_arm import VirtualArm


def virtual(
    folder: Annotated[
        Path | None, typer.Option(help="Folder to build it in.", show_default="~/.cache/condensery/arm64")
    ] = None,
    sources: Annotated[
        Path | None, typer.Option(help="An apt list file that carries arm64 (Ubuntu: the ports archive).")
    ] = None,
    count: Annotated[
        list[Path] | None,
        typer.Option("--count", metavar="MODEL", help="Count a model file's instructions; may be repeated."),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="Profile that turns counts into estimates: a name or a JSON file.")
    ] = "raspberry-pi-5",
    hub: Annotated[
        str | None,
        typer.Option(help="Address of a hub to serve as an emulated agent; the token must be in CONDENSERY_TOKEN."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the virtual ARM device (QEMU); then count instructions on it, or run it as an agent."""
    from workers.latency.emulated.virtual_arm import build, default_folder
    from workers.latency.profiles import VIRTUAL

    arm = build(folder or default_folder(), say, sources=sources)
    if count:
        _count(arm, count, profile, as_json)
    elif hub is not None:
        _run_agent(arm, hub)
    else:
        say(f'the virtual ARM device is ready in {arm.folder}: latency.devices = ["{VIRTUAL}{profile}"]')


def _count(arm: VirtualArm, models: Sequence[Path], profile: str, as_json: bool) -> None:
    from dashboards.terminal import device_tables
    from workers.file_names import runtime_of
    from workers.latency.estimated_probe import EstimatedProbe
    from workers.latency.measurement import FailedMeasurement
    from workers.latency.profiles import load_profile

    runtimes = sorted({runtime_of(path) for path in models})
    if len(runtimes) > 1:
        names = " and ".join(runtimes)
        raise InvalidSettings(f"models counted together must be for one runtime, but these are for {names}.")
    estimates = EstimatedProbe(load_profile(profile), arm, runtime=runtimes[0]).measure(models)
    output(as_json, device_tables.estimates_document, device_tables.estimates_table, models, estimates)
    failed = sum(isinstance(estimate, FailedMeasurement) for estimate in estimates)
    if failed:
        raise MeasurementFailed(f"{failed} of {counted(len(models), 'model')} could not be counted; see above.")


def _run_agent(arm: VirtualArm, hub: str) -> NoReturn:
    """Become the emulated agent's process; each hub and token has an agent folder of its own."""
    token = os.environ.get("CONDENSERY_TOKEN")
    if not token:
        raise InvalidSettings("the agent's token must be in CONDENSERY_TOKEN; `condensery devices add` prints it.")
    served = hashlib.sha256(f"{hub} {token}".encode()).hexdigest()[:12]
    command = arm.agent_command(hub, arm.folder.with_name(f"agent-{served}"))
    sys.stderr.flush()
    os.execv(command[0], command)
