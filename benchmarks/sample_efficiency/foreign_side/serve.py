"""Serve one sampler over standard input and output, a line of JSON for each message: `python serve.py NAME`.

Only the standard library and the sampler's own library are needed: this runs in whichever Python has that library.
Messages: {"task": …} answered by {"version": …}; {"ask": true} by {"params": …}; {"tell": outcome} and
{"add": params, "outcome": outcome} by {}. An answer {"error": …} says why the sampler can't go on.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import warnings


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    warnings.simplefilter("ignore")
    sampler = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if "task" in message:
                module = importlib.import_module(sys.argv[1].replace("-", "_") + "_peer")
                sampler = module.Sampler(message["task"])
                answer = {"version": module.version()}
            elif "ask" in message:
                answer = {"params": sampler.ask()}
            elif "tell" in message:
                sampler.tell(message["tell"])
                answer = {}
            else:
                sampler.add(message["add"], message["outcome"])
                answer = {}
        except Exception as error:  # whatever a library raises is the answer
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
