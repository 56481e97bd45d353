"""The figures that the documents quote are those in benchmarks/results."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import RESULTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXPERIMENTS = (ROOT / "docs" / "experiments.md").read_text()


def result_of(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())["result"]
    return result


def pct(fraction: float) -> str:
    """Return per cents, with two digits below 10 % and whole above: "0.36", "2.7", "17"."""
    return f"{100 * fraction:.0f}" if fraction >= 0.0995 else f"{100 * fraction:.2g}"


def exporting(result: dict[str, Any]) -> list[str]:
    ratios = {name: f"{ratio['median']:.0f} times" for name, ratio in result["ratios"].items()}
    return [
        f"{statistics.median(result['seconds']['condensery']) * 1e3:.0f} ms |",
        f"dynamo {ratios['torch_dynamo']}, TorchScript {ratios['torch_script']} as long",
    ]


def controlling(result: dict[str, Any]) -> list[str]:
    samplers = [result["tpe"], result["random"]]
    ours, plain = (sorted(times[key] * 1e3 for times in samplers) for key in ("overhead_s", "plain_optuna_s"))
    return [f"| {ours[0]:.0f} to {ours[1]:.0f} ms |", f"tell: {plain[0]:.0f} to {plain[1]:.0f} ms |"]


def counting(result: dict[str, Any]) -> list[str]:
    millions = {name: f"{variant['millions']['all']:.1f} M" for name, variant in result["variants"].items()}
    return [
        f"{millions['native']} with the project's kernel, {millions['ncnn']} with ncnn",
        f"{millions['litert']} with LiteRT |",
        f"under onnxruntime: {millions[result['peer']]} |",
    ]


def in_int8(result: dict[str, Any]) -> list[str]:
    millions = {name: row["millions"]["all"] for name, row in result["counted"].items()}
    names = ("native", "litert", "ncnn", "onnxruntime")
    lost = {name: f"{result['accuracy'][f'{name} int8']['points_lost']:.2f}" for name in names}
    fewer = millions["native fp32"] / millions["native int8"]
    return [
        f"{millions['native int8']:.1f} M with the project's kernel, {fewer:.1f} times fewer than in fp32; "
        f"{lost['native']} |",
        f"LiteRT {millions['litert int8']:.1f} M, ncnn {millions['ncnn int8']:.1f} M, "
        f"onnxruntime (weights alone) {millions['onnxruntime int8']:.1f} M; "
        f"{', '.join(lost[name] for name in names[1:])} |",
    ]


def training(result: dict[str, Any]) -> list[str]:
    rates = {
        name: [
            [f"{result[f'{name}, {threads}'][form]['images_s']:,.0f}" for threads in ("1 thread", "2 threads")]
            for form in ("ours", "plain")
        ]
        for name in ("CondenseNet-86", "digits-sized")
    }
    (ours, plain), (small, small_plain) = rates["CondenseNet-86"], rates["digits-sized"]
    memory = {form: f"{row['peak_mb']:,.0f} MB" for form, row in result["CondenseNet-86, 1 thread"].items()}
    return [
        f"one core; two | {'; '.join(ours)} | the plainest correct torch: {'; '.join(plain)} |",
        f"digits-sized network | {'; '.join(small)} | {'; '.join(small_plain)} |",
        f"| {memory['ours']}, recomputing {memory['recompute']} | {memory['plain']} |",
    ]


def reading(result: dict[str, Any]) -> list[str]:
    sides = [result["sides"][name] for name in ("condensery", "imagefolder")]
    speeds = [
        f"{side['cpu_s_per_1000_decoded']:.1f} s; {side['first_pass_images_per_s']:.0f} images/s; "
        f"{side['later_epoch_images_per_s']:,.0f} images/s |"
        for side in sides
    ]
    return [*speeds, " | ".join(f"{side['peak_mib']:.0f} MiB" for side in sides)]


def estimating(result: dict[str, Any]) -> list[str]:
    errors = {name: (pct(error["median"]), pct(error["max"])) for name, error in result["leave_one_out"].items()}
    ours, macs, x86 = (
        errors[name] for name in ("estimate (their mean)", "MACs + constant", "x86 wall time + constant")
    )
    return [
        f"each of {result['networks']} networks left out | median error {ours[0]} %, largest {ours[1]} % |",
        f"MACs + constant {macs[0]} % and {macs[1]} %, x86 wall time {x86[0]} % and {x86[1]} % |",
    ]


def predicting(result: dict[str, Any]) -> list[str]:
    macs = result["peers"]["macs and a constant"]
    return [
        f"{result['fitted_on']} CondenseNets",
        f"| median error {pct(result['held_out']['median_error'])} % |",
        f"MACs + constant {pct(macs['median_error'])} % |",
    ]


def killing(result: dict[str, Any]) -> list[str]:
    ended = "hub ended with exit code -15 when asked to"  # it was only just starting; the trials are whole
    of_trials = [violation for violation in result["violations"] if ended not in violation]
    return [f"{result['kills']} times `kill -9`", f"{len(of_trials)} trials lost", "0 left running"]


def simulating(result: dict[str, Any]) -> list[str]:
    run = result["runs"][0]
    return [
        f"{run['workers']:,} simulated workers, {run['trials']:,} trials",
        f"busy {run['utilisation']:.0%} of the time, workers idle {run['idle_share']:.1%}",
        f"{run['memory_mb'] / 1e3:.2f} GB |",
    ]


def looking(result: dict[str, Any]) -> list[str]:
    times = result["by_trials"]["10000"]
    page, peer, report = times["ours"], times["peer"], times["report"]
    first, other = (server["first_front_s"]["median"] for server in (page, peer))
    return [
        f"| {first:.1f} s | optuna-dashboard on the same file: {other:.0f} s |",
        f"| {page['poll_ms']['median']:.0f} ms | optuna-dashboard's: {peer['poll_ms']['median']:,.0f} ms |",
        f"step of the budget | {page['budget_step_ms']['median']:.0f} ms |",
        f"| {page['server_mb']:.0f} MB | optuna-dashboard's: {peer['server_mb']:.0f} MB |",
        f"| {report['bytes'] / 1e6:.1f} MB, its front {report['first_front_s']['median']:.1f} s after",
    ]


def scaling(result: dict[str, Any]) -> list[str]:
    texts, full = [], []
    for kind in ("sqlite", "postgresql"):
        plain, tpe = (result[kind][sampler]["8"] for sampler in ("random", "tpe"))
        texts.append(
            f"| {plain['rate']:.0f} a second, with TPE {tpe['rate']:.0f} "
            f"| plain Optuna's workers: {plain['optuna']:.0f}, with TPE {tpe['optuna']:.0f} |"
        )
        full += [result[kind][sampler]["full"] for sampler in ("random", "tpe")]
    kept, memory = min(run["share_of_early_rate"] for run in full), max(run["memory_mb"] for run in full)
    return [*texts, f"| {100 * kept:.0f} % of the first trials' rate or more, {memory:.0f} MB |"]


def starting(result: dict[str, Any]) -> list[str]:
    helps, sampled = result["help_s"], result["samples_per_s"].values()
    low, high = (round(end(sampled), -3) for end in (min, max))
    return [
        f"| {helps['condensery']:.2f} s | `optuna --help`: {helps['optuna']:.2f} s |",
        f"| {low:,.0f} to {high:,.0f} valid networks a second |",
        f"| {result['cost_of_ms']:.2f} ms | fvcore counting the module: {result['fvcore_ms']:.0f} ms |",
    ]


def searching(result: dict[str, Any]) -> list[str]:
    texts = []
    for peer in ("plain", "gated"):
        seconds = result["to_a_peers_end"][peer]["seconds"]
        reached = [one for one in seconds["by_seed"] if one is not None]  # None: ours never had what the peer ends with
        assert not any(one["at_least"] for one in reached)
        times, never = sorted(one["times"] for one in reached), len(seconds["by_seed"]) - len(reached)
        beside = f"; never in {never} of {len(seconds['by_seed'])} seeds" if never else ""
        texts.append(f"{seconds['median']['times']:.1f} ({times[0]:.1f} to {times[-1]:.1f}{beside})")
    return [f"plainest correct PyTorch loop: {texts[0]}; the same behind our gate: {texts[1]} |"]


def replaying(result: dict[str, Any]) -> list[str]:
    """Take the tables of known trainings that the row names; `result` is the first of them."""
    results = [result, *(result_of(f"sample_efficiency_nasbench201_{name}") for name in ("arm", "macs"))]
    assert {(one["best_peer"], one["at"]) for one in results} == {("tpe-multivariate", 200)}
    sooner = "; ".join(str(one["peers"]["price-aware"]["trainings_to_best_peer"]) for one in results)
    ours, peer = (
        ", ".join(f"{one['peers'][name]['median']['40']:.3f}" for one in results)
        for name in ("price-aware", "tpe-multivariate")
    )
    return [f"with latency and macs | {sooner} | 200 each", f"after 40: ours {ours}, it {peer} |"]


def stopping(result: dict[str, Any]) -> list[str]:
    rules = [result[f"{name} in fresh orders"] for name in ("CondenseBench", "digits")]
    ended, whole = ([f"{one[rule]['epochs_to_goal']:,.0f}" for one in rules] for rule in ("aggressive", "none"))
    lost = [f"{100 * one['aggressive']['wrongly_stopped_share']:.1f}" for one in rules]
    return [f"| {'; '.join(ended)}; {' and '.join(lost)} % |", f"nothing stopped: {'; '.join(whole)} |"]


def comparing(result: dict[str, Any]) -> list[str]:
    rows = {row["network"]: row for row in result["rows"]}
    host = {name: f"{row['host']['latency_ms']:.1f}" for name, row in rows.items()}
    board = {name: f"{row['estimated']['latency_ms']:.0f}" for name, row in rows.items()}
    small, large = "condensenet-74-g8", "condensenet-74-g4"
    return [
        f"| {host[small]}, {host[large]} ms; {board[small]}, {board[large]} ms |",
        *(
            f"v{number} {host[name]} and {board[name]} ms"
            for number, name in ((1, "mobilenet-v1"), (2, "mobilenet-v2"))
        ),
    ]


FIGURES: dict[str, tuple[str, Callable[[dict[str, Any]], list[str]]]] = {  # by the end of a row's command
    "benchmarks.headline": ("headline", searching),
    "benchmarks.sample_efficiency": ("sample_efficiency_condensebench", replaying),
    "benchmarks.early_stopping": ("early_stopping", stopping),
    "benchmarks.paper_arm_table": ("paper_arm_table", comparing),
    "benchmarks.training": ("training", training),
    "benchmarks.reading": ("reading", reading),
    "benchmarks.export": ("export", exporting),
    "benchmarks.controller": ("controller", controlling),
    "benchmarks.arm_variants": ("arm_variants", counting),
    "benchmarks.int8": ("int8", in_int8),
    "benchmarks.estimate": ("estimate", estimating),
    "benchmarks.predictor --counted cifar": ("predictor_counted_cifar", predicting),
    "benchmarks.predictor --policy quick --networks 36 --seed 2 --passes 5": (
        "predictor_cifar_quick_2_5_passes",
        predicting,
    ),
    "benchmarks.kill_anywhere": ("kill_anywhere", killing),
    "benchmarks.cluster_simulation": ("cluster_simulation", simulating),
    "benchmarks.scale": ("scale", scaling),
    "benchmarks.dashboard": ("dashboard", looking),
    "benchmarks.startup": ("startup", starting),
}


def rows_of(command: str) -> str:
    """Return the rows of the README's figures that a command prints, "0.3%" written as "0.3 %"."""
    return "\n".join(line for line in README.splitlines() if line.endswith(f"| `python -m {command}` |"))


@pytest.mark.parametrize("command", FIGURES)
def test_the_readme_quotes_what_the_benchmark_saved(command: str):
    name, texts_of = FIGURES[command]
    for text in texts_of(result_of(name)):
        assert re.sub(r"(?<=\d)%", " %", text) in rows_of(command)


def test_every_figure_in_the_readme_that_has_a_result_is_held_to_it():
    commands = re.findall(r"\| `python -m (benchmarks\.[^`]*)` \|$", README, re.MULTILINE)
    results = {path.stem for path in RESULTS.glob("*.json")}
    assert {command for command in commands if command.split()[0].removeprefix("benchmarks.") in results} <= set(
        FIGURES
    )
    assert set(FIGURES) <= set(commands)


def test_the_experiments_quote_the_counted_variants():
    rows = {
        "torch.onnx, onnxruntime": "| `torch.onnx.export(dynamo=False)`, onnxruntime |",
        "onnx, onnxruntime": "| our ONNX file, onnxruntime |",
        "litert": "| `litert`: our .tflite file,",
        "ncnn": "| ncnn, gather in numpy |",
        "native": "| `native`: ",
    }
    result = result_of("arm_variants")
    assert set(rows) == set(result["variants"])
    for name, begin in rows.items():
        (line,) = [line for line in EXPERIMENTS.splitlines() if line.startswith(begin)]
        variant = result["variants"][name]
        counts = " | ".join(f"{variant['millions'][key]:.1f}" for key in ("all", "vfma", "int", "branch"))
        plain = line.replace("*", "")
        assert f"| {counts} |" in plain
        assert plain.endswith(f" | {variant['estimated_ms']:.1f} |")


def test_the_experiments_quote_the_counts_in_int8():
    result = result_of("int8")
    for name, row in result["counted"].items():
        fp32 = result["counted"][f"{name.split()[0]} fp32"]["millions"]["all"]
        counts = f"{row['millions']['all']:.1f} | {fp32 / row['millions']['all']:.2f} | {row['bytes'] / 1e6:.2f}"
        lost = result["accuracy"].get(name, {}).get("points_lost")
        assert f"| {name} | {counts} | {'' if lost is None else f'{lost:.2f} '}|" in EXPERIMENTS
    for precision in ("fp32", "int8"):
        parts = result["threads"][precision]["parts"]
        two, four = (f"{parts['1'][0] / max(parts[number]):.2f}" for number in ("2", "4"))
        assert f"{two} and {four} times fewer ({precision})" in " ".join(EXPERIMENTS.split())


@pytest.mark.parametrize(("preset", "column"), [("cifar", 2), ("digits", 4)])
def test_the_experiments_quote_the_predictors_errors_on_counts(preset: str, column: int):
    result = result_of(f"predictor_counted_{preset}")
    quoted = {
        "MACs + constant": result["peers"]["macs and a constant"],
        "**non-negative least squares on physical features**": result["held_out"],
        "the same, a Gaussian process on what is left": result["peers"]["ours, a Gaussian process on the rest"],
    }
    for name, errors in quoted.items():
        (line,) = [line for line in EXPERIMENTS.splitlines() if line.startswith(f"| {name} |")]
        numbers = [float(number) for number in line.split("|")[column + 1].replace("*", "").split("/")]
        for number, key in zip(numbers, ("median_error", "p90_error", "max_error"), strict=True):
            digits = len(f"{number:g}".partition(".")[2])
            assert number == round(100 * errors[key], digits), (name, key)
