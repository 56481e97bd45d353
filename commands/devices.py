"""Devices: register, serve and list them; the ARM device in software; fits and calibrations."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from commands.common import AsJson, Storage, print_json, say, show_text, storage_words
from search.devices import PORT
from space.errors import DatabaseUnavailable, InvalidSettings, MeasurementFailed

if TYPE_CHECKING:
    import sqlalchemy as sa

    from search.settings import StudySettings
    from space.search_space import SearchSpace
    from workers.latency.measurement import LatencyProbe

app = typer.Typer(help="Measure on real ARM devices, and on one in software.", no_args_is_help=True)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DeviceName = Annotated[str, typer.Argument(help="The device's name.", show_default=False)]
Runtime = Annotated[str, typer.Option(help="onnxruntime, ncnn, litert or native.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of a run.")]
More = Annotated[int, typer.Option("--networks", min=0, help="So many sampled networks are measured first.")]
Preset = Annotated[str, typer.Option(help="The space they are sampled from: digits, cifar, imagenet-mobile.")]
Policy = Annotated[str, typer.Option(help="standard or quick.")]


def _database(storage: str | None) -> str:
    from search.store.database import DEFAULT_STORAGE

    return storage or DEFAULT_STORAGE


def _engine(storage: str | None) -> sa.Engine:
    from search.store.database import open_for_writing

    return open_for_writing(_database(storage))


def _reading(storage: str | None) -> sa.Engine:
    from search.store.database import open_for_reading, sqlite_file

    file = sqlite_file(_database(storage))
    if file is not None and not file.exists():
        raise DatabaseUnavailable(f"no database at {file}; `condensery devices add NAME` makes it, or use --storage.")
    return open_for_reading(_database(storage))


@app.command()
def add(
    name: DeviceName,
    queue: Annotated[
        str | None, typer.Option(help="Share the queue of devices of the same kind.", show_default="its name")
    ] = None,
    virtual: Annotated[
        str | None,
        typer.Option("--virtual", metavar="PROFILE", help="An emulated agent: its counts become estimates by PROFILE."),
    ] = None,
    hub: Annotated[str, typer.Option(help="The hub's address as the device reaches it.")] = f"http://127.0.0.1:{PORT}",
    storage: Storage = None,
) -> None:
    """Register a device; print its token, once, and the commands to run on it."""
    from search.devices import registry
    from workers.latency.agent_file import NAME, agent_sha256
    from workers.latency.profiles import load_profile

    if virtual is not None:
        load_profile(virtual)
    serve = _serve_command(hub, storage)
    token = registry.add_device(_engine(storage), name, queue, virtual)
    address = hub.rstrip("/")
    if virtual is not None:
        how = "Start its agent, under emulation, on a machine with condensery:"
        commands = [f"CONDENSERY_TOKEN={token} condensery devices virtual --hub {shlex.quote(address)}"]
    else:
        how = "Run these three commands on the device (Python 3.9 or newer with numpy and onnxruntime):"
        commands = [
            f"curl -fsS {shlex.quote(f'{address}/{NAME}')} -o {NAME}",
            f"echo '{agent_sha256()}  {NAME}' | sha256sum --check",
            f"CONDENSERY_TOKEN={token} python3 {NAME} run --hub {shlex.quote(address)}",
        ]
    lines = [f"device {name} is registered. Its token is shown this once:", f"  {token}", how]
    lines += ["\n".join(f"  {command}" for command in commands), *_hints(address, virtual is not None)]
    lines += ["and on this machine:", f"  {serve}"]
    sys.stdout.write("\n\n".join(lines) + "\n")  # plain: a command must stay on one line


def _hints(hub: str, virtual: bool) -> list[str]:
    """Return what a person must know to use the printed commands on the device."""
    address = urlsplit(hub)
    if address.hostname in LOOPBACK and not virtual:
        reached = f"http://{_lan_address() or 'THIS-HOST'}:{address.port or PORT}"
        return [
            "These commands reach this machine only. For a device elsewhere, put its way to this machine into them\n"
            f"(`--hub {reached}` prints them so), and serve with `condensery devices serve --host 0.0.0.0`."
        ]
    if address.scheme == "https" and not virtual:
        return [
            "Where no known authority signed the hub's certificate, copy the one that did to the device (of a\n"
            "self-signed one, itself), and add `--cacert ca.pem` to the first command, `--cafile ca.pem` to the last."
        ]
    return []


def _lan_address() -> str | None:
    """Return this host's address in its network, None where it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of nobody's: only the way there is looked up
        except OSError:
            return None
        found: str = probe.getsockname()[0]
    return None if found.startswith(("127.", "0.")) else found


def _serve_command(hub: str, storage: str | None) -> str:
    """Return the command that serves what devices reach at `hub`.

    Raises:
        InvalidSettings: it is no address of a hub.
    """
    try:
        address = urlsplit(hub)
        port = address.port
    except ValueError:
        address, port = urlsplit(""), None
    if address.scheme not in ("http", "https") or not re.fullmatch(r"[\w.:-]+", address.hostname or ""):
        raise InvalidSettings(
            f"--hub must be http:// or https:// with a host, like http://pi.local:{PORT}, not {hub!r}."
        )
    port = port or (443 if address.scheme == "https" else 80)
    words = ["condensery", "devices", "serve"]
    if address.hostname not in LOOPBACK:
        words += ["--host", "0.0.0.0"]
    if port != PORT:
        words += ["--port", str(port)]
    if address.scheme == "https":
        words += ["--cert", "cert.pem", "--key", "key.pem"]
    return shlex.join([*words, *storage_words(storage)])


@app.command()
def remove(name: DeviceName, storage: Storage = None) -> None:
    """Revoke a device's token; its results stay, and its open jobs go back to the queue."""
    from search.devices import registry

    registry.revoke_device(_engine(storage), name)
    say(f"device {name} is revoked")


@app.command("list")
def list_(storage: Storage = None, as_json: AsJson = False) -> None:
    """List the devices: processor, cores, runtimes, last seen, temperature, queue."""
    from dashboards.terminal import device_tables
    from search.devices import registry

    rows = registry.list_devices(_reading(storage))
    if as_json:
        print_json(device_tables.devices_document(rows))
    else:
        show_text(device_tables.devices_table(rows))


@app.command("jobs")
def jobs_(
    storage: Storage = None,
    last: Annotated[int, typer.Option(min=1, max=100_000, help="So many of the newest.")] = 30,
    as_json: AsJson = False,
) -> None:
    """List measurement jobs, newest first: what became of each, quarantined results and why."""
    from dashboards.terminal import device_tables
    from search.devices import history

    rows = history.newest_jobs(_reading(storage), last)
    if as_json:
        print_json(device_tables.jobs_document(rows))
    else:
        show_text(device_tables.jobs_table(rows))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = PORT,
    cert: Annotated[Path | None, typer.Option(help="TLS certificate (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="TLS key (PEM).")] = None,
    storage: Storage = None,
) -> None:
    """Run the hub that the devices' agents talk to, until Ctrl-C."""
    from search.devices.hub import serve as run

    if (cert is None) != (key is None):
        raise InvalidSettings("--cert and --key must be given together, but one is missing.")
    for path in (cert, key):
        if path is not None and not path.is_file():
            raise InvalidSettings(f"{path} is not a file; --cert and --key name PEM files.")
    run(_database(storage), host, port, None if cert is None or key is None else (cert, key), say)


@app.command()
def virtual(
    folder: Annotated[
        Path | None, typer.Option(help="Where it is built.", show_default="~/.cache/condensery/arm64")
    ] = None,
    sources: Annotated[
        Path | None, typer.Option(help="An apt list that carries arm64 (Ubuntu: the ports archive).")
    ] = None,
    count: Annotated[
        list[Path] | None,
        typer.Option("--count", metavar="MODEL", help="Count a model's instructions; may be repeated."),
    ] = None,
    profile: Annotated[str, typer.Option(help="What an estimate of counted models is made with.")] = "raspberry-pi-5",
    hub: Annotated[
        str | None, typer.Option(help="Then serve this hub as an emulated agent (token in CONDENSERY_TOKEN).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the ARM device in software (QEMU), count instructions on it, or run it as an agent."""
    from workers.latency.profiles import VIRTUAL, load_profile
    from workers.latency.virtual_arm import build, default_folder

    arm = build(folder or default_folder(), say, sources=sources)
    if count:
        from dashboards.terminal import device_tables
        from workers.file_names import runtime_of
        from workers.latency.estimated_probe import EstimatedProbe
        from workers.latency.measurement import FailedMeasurement

        runtimes = {runtime_of(path) for path in count}
        if len(runtimes) > 1:
            raise InvalidSettings(f"models counted together must be for one runtime, but these are for {runtimes}.")
        found = EstimatedProbe(load_profile(profile), arm, runtime=runtimes.pop()).measure(count)
        if as_json:
            print_json(device_tables.estimates_document(count, found))
        else:
            show_text(device_tables.estimates_table(count, found))
        failed = sum(isinstance(one, FailedMeasurement) for one in found)
        if failed:
            raise MeasurementFailed(f"{failed} of {len(found)} models could not be counted; see above.")
    elif hub is not None:
        if not os.environ.get("CONDENSERY_TOKEN"):
            raise InvalidSettings("the agent's token must be in CONDENSERY_TOKEN; `condensery devices add` shows it.")
        serves = hashlib.sha256(f"{hub} {os.environ['CONDENSERY_TOKEN']}".encode()).hexdigest()[:12]
        command = arm.agent_command(hub, arm.folder.with_name(f"agent-{serves}"))  # beside a native agent, or others
        sys.stderr.flush()
        os.execv(command[0], command)
    else:
        say(f'the ARM device in software is ready in {arm.folder}: latency.devices = ["{VIRTUAL}{profile}"]')


@app.command()
def fit(
    name: Annotated[str, typer.Argument(help="host, virtual:PROFILE or a device's queue.")],
    networks: More = 0,
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
    from search.pricing.targets import is_estimated

    engine = _engine(storage)
    probe = _measured(engine, name, _settings(name, preset, runtime, threads, policy), networks, storage)
    fitted = fit_device(engine, probe, threads, "estimated" if is_estimated(name, engine) else "measured")
    if as_json:
        print_json(device_tables.fit_document(fitted))
    else:
        show_text(device_tables.fit_panel(fitted))


@app.command()
def calibrate(
    name: Annotated[str, typer.Argument(help="host, or a device's queue.")],
    out: Annotated[Path, typer.Option(help="The profile to write (JSON).")],
    networks: More = 0,
    preset: Preset = "cifar",
    runtime: Runtime = "onnxruntime",
    policy: Policy = "standard",
    storage: Storage = None,
) -> None:
    """Fit a profile for estimates on a device of yours, from 8 or more networks measured on it."""
    from dashboards.terminal import device_tables
    from search.pricing.device_fit import calibrate as run
    from workers.latency.profiles import VIRTUAL, check_writable, save_profile
    from workers.latency.virtual_arm import VirtualArm, default_folder

    profile_name = check_writable(out)
    if name.startswith(VIRTUAL):
        raise InvalidSettings("a profile is calibrated from measurements, but a virtual device has estimates only.")
    arm = VirtualArm(default_folder())
    engine = _engine(storage)
    probe = _measured(engine, name, _settings(name, preset, runtime, 1, policy), networks, storage)
    profile = run(engine, probe, arm, profile_name, say)
    save_profile(profile, out)
    show_text(device_tables.profile_panel(profile, out))


def _settings(name: str, preset: str, runtime: str, threads: int, policy: str) -> StudySettings:
    """Return a study's settings with this one device, as the probes need them."""
    import tomllib

    from search.settings import settings_from
    from search.study_template import study_file

    document = tomllib.loads(study_file(preset, "devices"))
    document["latency"] = {"devices": [name], "runtime": runtime, "threads": threads, "policy": policy}
    document.pop("budget", None)
    return settings_from(document, "the command line")


def _measured(
    engine: sa.Engine, name: str, settings: StudySettings, networks: int, storage: str | None
) -> LatencyProbe:
    """Return the device's probe, after measuring so many sampled networks with it."""
    from search.devices.probe import CALIBRATING
    from search.launch import budget_space, files_root
    from search.pricing.device_fit import measure_more
    from search.pricing.targets import probe_named

    files = files_root(settings, _database(storage))
    files.mkdir(parents=True, exist_ok=True)
    probe = probe_named(name, settings, engine, files, say, CALIBRATING)
    if networks:
        space: SearchSpace = budget_space(settings)
        for done in measure_more(engine, probe, space, networks, files):
            unsteady = f" ({done.unsteady} not steady, which a fit leaves out)" if done.unsteady else ""
            failed = f", {done.failed} failed" if done.failed else ""
            say(f"{done.recorded} of {networks} networks measured{unsteady}{failed}")
    return probe
