"""A peer in a process of its own, in this Python or another: one line of JSON for each message, see `foreign_side`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.sample_efficiency.replay import Outcome, PeerBroke, PeerEnded
from benchmarks.sample_efficiency.table import Params

SERVE = Path(__file__).with_name("foreign_side") / "serve.py"


class ForeignPeer:
    """A sampler that `foreign_side/serve.py` runs; `version` names its library."""

    def __init__(self, name: str, python: Path | None, task: Mapping[str, object]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = [str(python or sys.executable), str(SERVE), name]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
            )
        except OSError as error:
            self._errors.close()
            raise PeerEnded(f"{command[0]} can't be started: {error.strerror}") from None
        try:
            self.version = str(self._call({"task": task})["version"])
        except PeerEnded:
            self.close()
            raise

    def ask(self) -> Params:
        params: Params = self._call({"ask": True})["params"]
        return params

    def tell(self, outcome: Outcome) -> None:
        self._call({"tell": _message(outcome)})

    def add(self, params: Params, outcome: Outcome) -> None:
        self._call({"add": params, "outcome": _message(outcome)})

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _call(self, message: Mapping[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            raise PeerBroke(f"its process ended: {said[-1] if said else 'it said nothing'}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerBroke(str(answer["error"]))
        return answer


def _message(outcome: Outcome) -> dict[str, object]:
    return {
        "state": outcome.state,
        "accuracy": outcome.accuracy,
        "costs": outcome.costs,
        "excess": outcome.excess,
    }
