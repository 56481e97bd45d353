"""The agent's command line.

- `run --hub URL` serves a hub. Only `run` loads what that needs: a measuring process starts fast.
- `measure --policy JSON [--cores LIST] MODEL...` times models in this process; `count --counts FILE MODEL...` counts
  their instructions under an emulator that writes FILE. Fresh processes run these two: they print one JSON document on
  standard output and say on standard error which model they are at, so that a crash can be blamed on the right one.
  `count --stay` takes its models from standard input instead, one request after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.latency.agent.counting import CountSettings, count_models
from workers.latency.agent.reports import ANSWER, PROGRESS
from workers.latency.agent.runtimes import RUNTIMES
from workers.latency.agent.timing import measure_models


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; return the exit code: 0 done, 2 wrong use or no runtime, 3 the hub refuses the token."""
    arguments = parser().parse_args(argv)
    return int(arguments.handler(arguments))


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser; `handler` of what it returns runs the sub-command."""
    parser = argparse.ArgumentParser(prog="agent.pyz", description="Time models on this device, or count what they do.")
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="time models and print one JSON document")
    measure.add_argument("--policy", required=True, metavar="JSON", help="warmup_runs, warmup_s, runs, run_s, ...")
    core = "the cores to pin to, one per thread, such as 3,2 (default: the last usable ones)"
    measure.add_argument("--cores", type=_numbers, metavar="LIST", help=core)
    measure.set_defaults(handler=_print_report, report=_measure)
    count = commands.add_parser("count", help="count the instructions of models under a counting emulator")
    count.add_argument("--counts", required=True, type=Path, metavar="FILE", help="where the emulator writes counts")
    count.add_argument("--runs", type=int, default=CountSettings.runs, help="counted runs of each model")
    count.add_argument("--warmup", type=int, default=CountSettings.warmup, help="uncounted runs before them")
    stay = 'answer requests on standard input, {"models": [PATH, ...], "runs": N} each, until it closes'
    count.add_argument("--stay", action="store_true", help=stay)
    count.set_defaults(handler=_print_report, report=_count)
    for command, models in ((measure, "+"), (count, "*")):
        command.add_argument("--runtime", choices=sorted(RUNTIMES), help="what runs the models (default: onnxruntime)")
        command.add_argument("--watch-stdin", action="store_true", help="exit when standard input closes")
        command.add_argument("models", nargs=models, type=Path, metavar="MODEL", help="a file that the runtime reads")
    _add_run(commands)
    return parser


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="serve a hub: measure what it asks for",
        description="Serve a hub as one of its devices. The token is read from CONDENSERY_TOKEN or --token-file.",
    )
    run.add_argument("--hub", required=True, metavar="URL", help="the hub's address, such as https://hub.example:8700")
    run.add_argument("--token-file", type=Path, metavar="FILE", help="read the device's token from here")
    run.add_argument(
        "--folder", type=Path, default=Path("~/.condensery-agent"), help="where the agent keeps what outlives it"
    )
    run.add_argument("--core", type=int, metavar="N", help="the core to pin to (default: the last usable one)")
    run.add_argument("--cafile", type=Path, metavar="FILE", help="trust these certificates instead of the system's")
    run.add_argument("--once", action="store_true", help="end when the hub has no job left")
    run.add_argument("--virtual", action="store_true", help="this device is emulated: count instructions, time nothing")
    launcher = 'the words that start an emulated Python; in them "{counts}" stands for the file of the counts'
    run.add_argument("--launcher", metavar="JSON", help=launcher)
    run.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    from workers.latency.agent.serving.errors import WrongUse
    from workers.latency.agent.serving.journal import Journal
    from workers.latency.agent.serving.service import serve_hub
    from workers.latency.agent.serving.settings import settings_from

    try:
        settings = settings_from(arguments)
    except WrongUse as error:
        Journal().say(str(error))
        return 2
    return serve_hub(settings)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    policy = json.loads(arguments.policy)
    if not isinstance(policy, dict):
        raise ValueError(f"the policy must be a JSON object, but got {arguments.policy}; pass one")
    if arguments.runtime is not None:
        policy["runtime"] = arguments.runtime
    return measure_models(arguments.models, policy, arguments.cores, _say_position)


def _count(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.models:
        raise ValueError("models must be at least one, but got none; name a file")
    os.environ["OMP_NUM_THREADS"] = "1"  # read as the runtime is imported
    settings = CountSettings(arguments.runs, arguments.warmup, arguments.runtime or CountSettings.runtime)
    return count_models(arguments.models, arguments.counts, settings, _say_position)


def _answer_requests(arguments: argparse.Namespace) -> None:
    """Count the models of one request after the other; the process ends as soon as standard input closes."""
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            requests.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        request = json.loads(requests.get())
        arguments.models, arguments.runs = [Path(path) for path in request["models"]], request["runs"]
        # a new line first: a runtime may have left an unfinished one
        sys.stdout.write(f"\n{ANSWER}{json.dumps(_count(arguments), allow_nan=False)}\n")
        sys.stdout.flush()


def _print_report(arguments: argparse.Namespace) -> int:
    """Run `measure` or `count` and print what it returns."""
    if arguments.watch_stdin:
        _exit_when_stdin_closes()
    try:
        if getattr(arguments, "stay", False):
            _answer_requests(arguments)
        report = arguments.report(arguments)
    except (ValueError, ImportError, OSError) as error:
        sys.stderr.write(f"agent: {error}\n")
        return 2
    sys.stdout.write(json.dumps(report, allow_nan=False) + "\n")
    sys.stdout.flush()
    return 0


def _say_position(position: int) -> None:
    sys.stderr.write(f"{PROGRESS}{position}\n")
    sys.stderr.flush()


def _exit_when_stdin_closes() -> None:
    """End this process as soon as the one that holds its standard input is gone, however that one died."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
