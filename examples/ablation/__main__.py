"""The paper's ablation: learned, plain and no groups; growth; connectivity; condense factors; error over macs.

    python -m examples.ablation --work FOLDER [--seeds 3]    train what FOLDER lacks; stopped or killed, it goes on
    python -m examples.ablation --work FOLDER --write        print the tables and save every error as JSON
    python -m examples.ablation --tables --plot              show what was saved: tables, and a plot in docs/images/

`--plan digits` takes seconds and shows how it goes; `--plan fashion-mnist-longer` trains learned and plain groups three
times as long. Every finished training is one line of FOLDER/trainings.jsonl, on the disk before the next begins; a
folder may hold several plans.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.long_work import ends_clearly
from examples.ablation.plan import FASHION, PLANS
from space.errors import InvalidSettings

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def main() -> None:
    options = parsed()
    with ends_clearly():
        run(options)


def run(options: argparse.Namespace) -> None:
    if options.work is not None:
        from examples.ablation.training import Work, run_all

        work = Work(PLANS[options.plan], options.seeds, options.work.absolute())
        if options.write:
            write(work)
        else:
            run_all(work, options.device)
    if options.tables:
        from examples.ablation.results import lines_of

        print(*lines_of(saved(record.RESULTS / f"{name_of(options.plan)}.json")), sep="\n")
    if options.plot:
        from examples.ablation.plot import write_plot

        name = name_of(options.plan)
        path = options.images / f"{name}.svg"
        write_plot(saved(record.RESULTS / f"{name}.json"), path)
        print(f"drew {path}")


def write(work: Any) -> None:
    """Print the tables of what is done, and save its errors with versions and machine.

    Raises:
        InvalidSettings: nothing is done yet.
    """
    from examples.ablation.results import lines_of, summary

    rows = work.rows()
    if not rows:
        raise InvalidSettings(f"nothing of {work.plan.name} is finished in {work.folder}; train there first.")
    result = summary(work.plan, rows, work.seeds)
    print(*lines_of(result), sep="\n")
    record.save(name_of(work.plan.name), result)


def name_of(plan: str) -> str:
    """Return what a plan's files are called: the plan of docs/ablation.md's are `ablation`."""
    return "ablation" if plan == FASHION.name else f"ablation_{plan}"


def saved(path: Path) -> dict[str, Any]:
    """Return the result in a saved JSON."""
    if not path.exists():
        raise InvalidSettings(f"there is no {path} to show; train and --write first.")
    result: dict[str, Any] = json.loads(path.read_text())["result"]
    return result


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="the folder of everything that is finished")
    parser.add_argument("--plan", choices=list(PLANS), default=FASHION.name)
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=3, metavar="N", help="of each network; 3")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--write", action="store_true", help="save what is done so far instead of training")
    parser.add_argument("--tables", action="store_true", help="print the tables of what was saved")
    parser.add_argument("--plot", action="store_true", help="draw what was saved")
    parser.add_argument("--images", type=Path, default=IMAGES, help="where --plot draws; docs/images")
    options = parser.parse_args()
    if options.work is None and not (options.tables or options.plot):
        parser.error("--work FOLDER says where to train; --tables and --plot show what was saved")
    return options


if __name__ == "__main__":
    main()
