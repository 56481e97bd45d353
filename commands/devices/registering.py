"""The devices behind a hub: register, remove and list them, and serve them."""

from __future__ import annotations

import re
import shlex
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from commands.common import AsJson, Storage, database_url, output, say
from search.devices import PORT
from search.store.connection.printed_commands import printed_command
from space.errors import DatabaseUnavailable, InvalidSettings
from workers.listening import is_loopback

if TYPE_CHECKING:
    import sqlalchemy as sa

DeviceName = Annotated[str, typer.Argument(help="The device's name.", show_default=False)]


def add(
    name: DeviceName,
    queue: Annotated[
        str | None,
        typer.Option(help="Queue to share with devices of the same kind.", show_default="one of its own, by its name"),
    ] = None,
    virtual: Annotated[
        str | None,
        typer.Option("--virtual", metavar="PROFILE", help="Register a virtual device, estimated by PROFILE."),
    ] = None,
    hub: Annotated[str, typer.Option(help="The hub's address as the device reaches it.")] = f"http://127.0.0.1:{PORT}",
    storage: Storage = None,
) -> None:
    """Register a device; print its token, once, and the commands to run on it."""
    from search.devices import registry
    from search.store.connection.database import open_for_writing
    from workers.latency.agent_file import NAME, agent_sha256
    from workers.latency.profiles import load_profile

    if virtual is not None:
        load_profile(virtual)
    serve_command = _serve_command(hub, storage)
    token = registry.add_device(open_for_writing(database_url(storage)), name, queue, virtual)
    address = hub.rstrip("/")
    if virtual is not None:
        instruction = "Start its agent, under emulation, on a machine with condensery:"
        commands = [f"CONDENSERY_TOKEN={token} condensery devices virtual --hub {shlex.quote(address)}"]
    else:
        instruction = "Run these three commands on the device (Python 3.9 or newer with numpy and onnxruntime):"
        directly = "--noproxy '*' " if is_loopback(urlsplit(address).hostname or "") else ""  # else by http_proxy
        commands = [
            f"curl -fsS {directly}{shlex.quote(f'{address}/{NAME}')} -o {NAME}",
            f"echo '{agent_sha256()}  {NAME}' | sha256sum --check",
            f"CONDENSERY_TOKEN={token} python3 {NAME} run --hub {shlex.quote(address)}",
        ]
    paragraphs = [f"device {name} is registered. Its token is shown this once:", f"  {token}", instruction]
    paragraphs += ["\n".join(f"  {command}" for command in commands), *_hints(address, virtual is not None, storage)]
    paragraphs += ["and on this machine:", f"  {serve_command}"]
    sys.stdout.write("\n\n".join(paragraphs) + "\n")  # plain: a command must stay on one line


def _hints(hub: str, virtual: bool, storage: str | None) -> list[str]:
    """Return what the user must know to run the printed commands on the device."""
    address = urlsplit(hub)
    if is_loopback(address.hostname or "") and not virtual:
        reachable = f"http://{_lan_address() or 'THIS-HOST'}:{address.port or PORT}"
        serve_all = _serve_command(f"http://0.0.0.0:{address.port or PORT}", storage)
        return [
            "These commands reach this machine only. For a device elsewhere, name the hub as the device reaches it\n"
            f"(`--hub {reachable}`), and serve with `{serve_all}`."
        ]
    if address.scheme == "https" and not virtual:
        return [
            "If no authority that the device knows signed the hub's certificate, copy the certificate of the one that\n"
            "did (a self-signed certificate: itself) to the device, and add `--cacert ca.pem` to the first command,\n"
            "`--cafile ca.pem` to the last."
        ]
    return []


def _lan_address() -> str | None:
    """Return this host's address in its network, None if it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address reserved for examples: this only looks up the route
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith(("127.", "0.")) else address


def _serve_command(hub: str, storage: str | None) -> str:
    """Return the command that serves what devices reach at `hub`.

    Raises:
        InvalidSettings: `hub` isn't the address of a hub.
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
    if not is_loopback(address.hostname or ""):
        words += ["--host", "0.0.0.0"]
    if port != PORT:
        words += ["--port", str(port)]
    if address.scheme == "https":
        words += ["--cert", "cert.pem", "--key", "key.pem"]
    return printed_command(words, database_url(storage))


def remove(name: DeviceName, storage: Storage = None) -> None:
    """Revoke a device's token; its results stay, and its open jobs go back to the queue."""
    from search.devices import registry
    from search.store.connection.database import open_for_writing

    registry.revoke_device(open_for_writing(database_url(storage)), name)
    say(f"device {name} is revoked")


def list_devices(storage: Storage = None, as_json: AsJson = False) -> None:
    """List the devices: processor, cores, runtimes, last contact, temperature, queue."""
    from dashboards.terminal import device_tables
    from search.devices import registry

    rows = registry.list_devices(_existing_database(storage))
    output(as_json, device_tables.devices_document, device_tables.devices_table, rows)


def list_jobs(
    storage: Storage = None,
    last: Annotated[int, typer.Option(min=1, max=100_000, help="How many of the newest to list.")] = 30,
    as_json: AsJson = False,
) -> None:
    """List measurement jobs, newest first, with what became of each and why results were quarantined."""
    from dashboards.terminal import device_tables
    from search.devices import history

    rows = history.newest_jobs(_existing_database(storage), last)
    output(as_json, device_tables.jobs_document, device_tables.jobs_table, rows)


def _existing_database(storage: str | None) -> sa.Engine:
    """Return the database, opened for reading; raise DatabaseUnavailable if there is none yet."""
    from search.store.connection.database import open_for_reading, sqlite_file

    url = database_url(storage)
    file = sqlite_file(url)
    if file is not None and not file.exists():
        add = printed_command(["condensery", "devices", "add", "NAME"], url)
        raise DatabaseUnavailable(f"no database at {file}; `{add}` makes it, or use --storage.")
    return open_for_reading(url)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = PORT,
    cert: Annotated[Path | None, typer.Option(help="TLS certificate, a PEM file.")] = None,
    key: Annotated[Path | None, typer.Option(help="TLS key, a PEM file.")] = None,
    storage: Storage = None,
) -> None:
    """Run the hub that the devices' agents talk to, until Ctrl-C."""
    from search.devices import hub

    if (cert is None) != (key is None):
        raise InvalidSettings("--cert and --key must be given together, but one is missing.")
    for path in (cert, key):
        if path is not None and not path.is_file():
            raise InvalidSettings(f"{path} is not a file; --cert and --key name PEM files.")
    hub.serve(database_url(storage), host, port, None if cert is None or key is None else (cert, key), say)
