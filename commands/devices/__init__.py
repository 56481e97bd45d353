"""`condensery devices …`: register, serve and list devices; the virtual device; fits and calibrations."""

from __future__ import annotations

import typer

from commands.devices import fitting, registering, virtual_device

app = typer.Typer(help="Measure on real ARM devices, and on a virtual one.", no_args_is_help=True)
app.command()(registering.add)
app.command()(registering.remove)
app.command("list")(registering.list_devices)
app.command("jobs")(registering.list_jobs)
app.command()(registering.serve)
app.command()(virtual_device.virtual)
app.command()(fitting.fit)
app.command()(fitting.calibrate)
