"""The paper's ARM table again: its five networks and today's MobileNets on a Raspberry Pi 5 (estimated) and this host.

    python -m benchmarks.paper_arm_table [--networks NAME ...] [--skip-host] [--runs N] [--count-again]

The paper's ARM processor is older and other than a Raspberry Pi 5, so what can be compared is order and ratios.

Notable choices:
- A model is counted once: equal files take their counts from the saved result, unless --count-again.
- Counting needs the ARM device in software, which is set up on first use. VGG-16 takes minutes for each run, so it
  is counted in fewer.
- Only a run over all networks is saved.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks import record
from benchmarks.paper_arm_table.networks import NETWORKS
from benchmarks.paper_arm_table.table import (
    NAME,
    PROFILE,
    REFERENCE,
    Devices,
    known_counts,
    result_of,
    row_of,
    say,
    table,
)
from workers.latency.profiles import load_profile

HELP_RUNS = "counted runs of each network (VGG-16: at most 3)"


def main() -> None:
    from search.pricing.pricer import write_anchor
    from workers.latency.emulated.virtual_arm import build, default_folder
    from workers.latency.host_probe import HostProbe
    from workers.latency.policy import STANDARD

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper_arm_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--skip-host", action="store_true", help="count only; host timings need a quiet machine")
    parser.add_argument("--runs", type=int, default=5, choices=range(1, 1001), metavar="N", help=HELP_RUNS)
    parser.add_argument("--count-again", action="store_true", help="also what the saved result has counts of")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: equal files each time, so that their counts are known
    saved = record.RESULTS / f"{NAME}.json"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        host = None if arguments.skip_host else HostProbe(STANDARD, write_anchor(folder))
        counts = {} if arguments.count_again else known_counts(saved)
        devices = Devices(partial(build, default_folder(), say), load_profile(PROFILE), host, arguments.runs, counts)
        rows = [row_of(network, folder, devices) for network in arguments.networks]
    print("\n".join(table(rows)))
    if set(arguments.networks) != set(NETWORKS):
        print("not saved: a result holds all networks")
        return
    record.save(NAME, {"reference": REFERENCE, "profile": PROFILE} | result_of(rows))


if __name__ == "__main__":
    main()
