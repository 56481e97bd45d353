"""CondenseBench as it is shipped: the columns, the same bytes for the same journals, and what is found in it."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest

from benchmarks import record
from benchmarks.condensebench.__main__ import DOCUMENT, TABLES, main
from benchmarks.condensebench.costs import COUNTS, compute_proxies, count_instructions
from benchmarks.condensebench.costs import PROXIES as PROXIES_FILE
from benchmarks.condensebench.findings import (
    MARKS,
    as_markdown,
    findings,
    part_of,
    put_into,
    rank_correlation,
    ranking,
    seed_noise,
)
from benchmarks.condensebench.journal import open_journal, read_rows
from benchmarks.condensebench.presets import BENCHES
from benchmarks.condensebench.table import read_about, read_table, write_table
from benchmarks.condensebench.training import TRAININGS, Workshop, run_all, trained
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidSettings, TrialNotReady
from space.search_space import SearchSpace
from tests.workers.arm_device import arm_device
from workers.images.batches import load
from workers.images.cache import prepare
from workers.settings import DataSettings, TrainingSettings
from workers.training.proxies import PROXIES

DIGITS = replace(BENCHES["digits"], repeated=1, first=1)  # 4 networks, one of them with two seeds
PER_MILLION = {"branch": 1, "load": 1, "store": 1, "vload": 1, "vstore": 1, "vfma": 3, "simd_fp": 1, "int": 1}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workshop:
    """A table of digits: all but the last network are trained, all but the first counted."""
    folder = tmp_path_factory.mktemp("work")
    shop = Workshop(DIGITS, folder, folder / "nowhere", "cpu")
    prepare(DIGITS.data, shop.images)
    images = load(DIGITS.data, shop.images)
    with open_journal(shop.folder / TRAININGS) as journal:
        for training in DIGITS.trainings()[:-1]:
            journal.append(trained(shop, training, images))
        journal.append({**journal.rows()[0], "identity": "of other settings"})
    compute_proxies(shop)
    with open_journal(shop.folder / COUNTS) as journal:
        for config in DIGITS.configs()[1:]:
            counts = {name: count * 100_000 for name, count in PER_MILLION.items()}
            made_of = {"runs": 3, "device": {"qemu": "7"}, "code": "", "runtimes": {"onnxruntime": "1", "native": "1"}}
            journal.append({"config": config.to_dict(), "counts": {"onnxruntime": counts, "native": counts}} | made_of)
    return shop


def table_of(shop: Workshop, folder: Path) -> tuple[pandas.DataFrame, dict]:
    path = write_table(replace(shop, tables=folder))
    return pandas.read_csv(path), json.loads((folder / "condensebench-digits.json").read_text())


def test_one_row_a_training_with_the_columns_that_are_documented(shop, tmp_path):
    table, _ = table_of(shop, tmp_path)
    costs = [f"pi5_{runtime}_{end}" for runtime in ("onnxruntime", "native") for end in ("ms", "low_ms", "high_ms")]
    assert list(table.columns) == [
        *("groups", "condense_factor", "bottleneck", "layers_1", "layers_2", "growth_1", "growth_2", "seed"),
        *("macs", "params", "top1", "val_loss", "test_top1", *costs, *(f"proxy_{name}" for name in PROXIES)),
        *(f"{what}_{epoch}" for what in ("top1", "val_loss", "train_loss") for epoch in (1, 2, 3)),
        "train_seconds",
    ]
    assert len(table) == len(DIGITS.trainings()) - 1 == 4
    keys = table.iloc[:, :8]
    assert keys.equals(keys.sort_values(list(keys.columns), ignore_index=True))
    assert not keys.duplicated().any()
    assert table.top1_3.equals(table.top1)


def test_a_row_holds_what_its_training_found_and_what_its_network_costs(shop, tmp_path):
    table, _ = table_of(shop, tmp_path)
    row = next(row for row in read_rows(shop.folder / TRAININGS) if row["seed"] == 1)
    config = CondenseNetConfig.from_dict(row["config"])
    written = table[table.seed == 1].iloc[0]
    assert (written.groups, written.layers_2, written.growth_1) == (config.groups, config.stages[1], config.growth[0])
    assert (written.macs, written.params) == (cost_of(config).macs, cost_of(config).params)
    assert [written.top1_1, written.top1_2, written.top1] == [epoch["val_top1"] for epoch in row["curve"]]
    assert written.test_top1 == row["test_top1"]
    assert written.train_loss_2 == pytest.approx(row["curve"][1]["train_loss"], rel=1e-5)
    assert np.isfinite(table[[f"proxy_{name}" for name in PROXIES]].to_numpy()).all()


def test_a_network_that_is_not_counted_has_no_latency_and_the_others_lie_in_their_intervals(shop, tmp_path):
    table, _ = table_of(shop, tmp_path)
    uncounted = DIGITS.configs()[0]
    is_uncounted = (table.groups == uncounted.groups) & (table.condense_factor == uncounted.condense_factor)
    assert table.pi5_native_ms.isna().equals(is_uncounted)
    counted = table[~is_uncounted]
    for name in ("pi5_onnxruntime", "pi5_native"):
        low, middle, high = (counted[f"{name}_{end}"] for end in ("low_ms", "ms", "high_ms"))
        assert ((low < middle) & (middle < high)).all()
    assert (counted.pi5_native_high_ms > counted.pi5_onnxruntime_high_ms).all()  # another runtime: less is known


def test_the_json_says_how_far_the_table_came_and_how_it_was_made(shop, tmp_path):
    _, about = table_of(shop, tmp_path)
    content = (tmp_path / "condensebench-digits.csv.gz").read_bytes()
    assert about["csv"] == {
        "file": "condensebench-digits.csv.gz",
        "sha256": hashlib.sha256(content).hexdigest(),
        "rows": 4,
    }
    assert about["trainings"] == {"wanted": 5, "done": 4, "by_seed": {"0": 3, "1": 1}, "failed": []}
    assert about["training"]["epochs"] == 3
    assert about["images"]["dataset"] == "Digits (scikit-learn)"
    assert (about["latency"]["kind"], about["latency"]["networks"]) == ("estimated", 2)
    assert about["latency"]["runtimes"] == {"onnxruntime": "1", "native": "1"}
    assert sum(about["made"]["by_code"].values()) == 4


def test_the_same_journals_give_the_same_bytes(shop, tmp_path):
    first, second = (write_table(replace(shop, tables=tmp_path / name)).read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_table_without_a_row_is_refused(tmp_path):
    with pytest.raises(TrialNotReady, match="train some first"):
        write_table(Workshop(DIGITS, tmp_path, tmp_path))


def test_a_table_whose_journals_are_gone_goes_on_where_it_is(shop, tmp_path, capsys):
    whole = write_table(replace(shop, tables=tmp_path / "whole"))
    first, second = (replace(shop, folder=tmp_path / name, tables=tmp_path / "parts") for name in ("first", "second"))
    known: set[str] = set()  # networks whose costs the table has by then, so the second part's journals don't
    for part, trained_there in ((first, slice(2)), (second, slice(2, None))):
        for name in (PROXIES_FILE, COUNTS):
            with open_journal(part.folder / name) as journal:
                for row in read_rows(shop.folder / name):
                    if CondenseNetConfig.from_dict(row["config"]).digest not in known:
                        journal.append(row)
        with open_journal(part.folder / TRAININGS) as journal:
            for row in read_rows(shop.folder / TRAININGS)[trained_there]:
                journal.append(row)
                known.add(CondenseNetConfig.from_dict(row["config"]).digest)
        prepare(DIGITS.data, part.images)
        path = write_table(part)
        assert write_table(replace(part)).read_bytes() == path.read_bytes()  # twice is as good as once
    assert path.read_bytes() == whole.read_bytes()
    assert read_about(path) == read_about(whole)
    fresh = replace(first, folder=tmp_path / "fresh")
    compute_proxies(fresh)
    assert [row["config"] for row in read_rows(fresh.folder / PROXIES_FILE)] == [DIGITS.configs()[-1].to_dict()]
    run_all(replace(fresh, bench=replace(DIGITS, seeds=1)), processes=1, limit=3)
    assert capsys.readouterr().out.endswith("3 of 3 trainings of digits are done\n")


def test_a_table_made_with_other_settings_is_not_added_to(shop, tmp_path):
    path = write_table(replace(shop, tables=tmp_path))
    longer = replace(DIGITS, training=DIGITS.training.model_copy(update={"epochs": 4}))
    with pytest.raises(InvalidSettings, match=r"made with another training.*'epochs': 3.*--tables"):
        write_table(replace(shop, bench=longer, tables=tmp_path))
    about = json.loads(path.with_name("condensebench-digits.json").read_text())
    about["latency"]["runtimes"]["onnxruntime"] = "0.9"
    path.with_name("condensebench-digits.json").write_text(json.dumps(about))
    with pytest.raises(InvalidSettings, match=r"its runtimes are .*0\.9.*--tables"):
        write_table(replace(shop, tables=tmp_path))


def test_a_failed_training_is_named_and_has_no_row(shop, tmp_path):
    row = read_rows(shop.folder / TRAININGS)[0]
    failed = {key: value for key, value in row.items() if key not in ("top1", "val_loss", "test_top1")}
    other = replace(shop, folder=tmp_path / "other")
    prepare(DIGITS.data, other.images)
    with open_journal(other.folder / TRAININGS) as journal:
        journal.append({**failed, "failed": "the loss became nan"})
        journal.append(read_rows(shop.folder / TRAININGS)[1])
    table, about = table_of(other, tmp_path)
    assert len(table) == 1
    assert about["trainings"]["failed"] == [{"config": row["config"], "seed": 0, "failed": "the loss became nan"}]


def test_proxies_that_are_known_are_not_computed_again(shop):
    before = (shop.folder / "proxies.jsonl").read_bytes()
    compute_proxies(shop)
    assert (shop.folder / "proxies.jsonl").read_bytes() == before
    assert len(before.splitlines()) == 4


@pytest.mark.slow
def test_instructions_are_counted_under_both_runtimes_and_go_on_where_they_stopped(tmp_path, monkeypatch):
    arm_device()
    monkeypatch.setattr("benchmarks.condensebench.costs.TOGETHER", 1)
    shop = Workshop(DIGITS, tmp_path, tmp_path)
    with open_journal(tmp_path / COUNTS) as journal:
        for config in DIGITS.configs()[1:]:
            journal.append({"config": config.to_dict(), "counts": {}})
    count_instructions(shop)
    rows = read_rows(tmp_path / COUNTS)
    assert len(rows) == 4
    counts = rows[-1]["counts"]
    assert CondenseNetConfig.from_dict(rows[-1]["config"]) == DIGITS.configs()[0]
    assert 0 < counts["native"]["all"] < counts["onnxruntime"]["all"]


# --- findings ---------------------------------------------------------------------------------------------------


def test_every_finding_of_a_small_table_is_printed_or_said_to_be_missing(shop, tmp_path):
    path = write_table(replace(shop, tables=tmp_path))
    found = findings(path)
    text = as_markdown(found, read_about(path))
    assert "**4 trainings** of 3 networks: 3 with seed 0, 1 with seed 1; 5 is the whole table." in text
    assert "too few networks have two seeds yet" in text
    assert all(f"| `proxy_{name}` | – | – |" in text for name in PROXIES)  # of 3 networks nothing can be said
    assert json.loads(json.dumps(found)) == found


def test_the_noise_of_seeds_is_that_of_one_training_around_its_networks_mean():
    networks, rng = 4_000, np.random.default_rng(0)
    skill = rng.normal(0.8, 0.05, networks)
    columns = {"groups": np.tile(np.arange(networks), 2), "seed": np.repeat([0, 1], networks)}
    noise = seed_noise({**columns, "top1": np.concatenate([skill + rng.normal(0, 0.01, networks) for _ in range(2)])})
    assert noise is not None
    assert noise["networks"] == networks
    assert noise["seed_sd"] == pytest.approx(0.01, rel=0.05)
    assert noise["sd_between_networks"] == pytest.approx(math.hypot(0.05, 0.01 / math.sqrt(2)), rel=0.05)


def test_a_ranker_that_only_knows_what_a_network_costs_ranks_nothing_among_networks_of_equal_cost():
    rng = np.random.default_rng(0)
    macs = np.repeat(np.arange(1.0, 6.0), 400)
    skill = rng.normal(size=len(macs))
    table = {"macs": macs, "top1": macs * 3 + skill, "proxy_cost": macs + rng.normal(0, 0.01, len(macs))}
    table["proxy_skill"] = skill
    assert ranking(table, "proxy_cost")["all"] > 0.9
    assert abs(ranking(table, "proxy_cost")["equal_macs"]) < 0.1
    assert ranking(table, "proxy_skill")["equal_macs"] == pytest.approx(1.0)


def test_a_rank_correlation_needs_values_that_vary():
    one = np.arange(6.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    assert rank_correlation(one, np.ones(6)) is None
    assert rank_correlation(one[:3], one[:3]) is None
    assert rank_correlation(np.append(one, np.nan), np.append(one, 9.0)) == pytest.approx(1.0)


def test_findings_replace_those_that_a_document_holds(tmp_path):
    document = tmp_path / "page.md"
    document.write_text(f"before\n\n{MARKS[0]}\nold\n{MARKS[1]}\n\nafter\n")
    put_into(document, "new\n")
    assert document.read_text() == f"before\n\n{MARKS[0]}\nnew\n{MARKS[1]}\n\nafter\n"
    assert part_of(document) == "new\n"


def test_the_documented_findings_are_those_of_the_shipped_table():
    path = TABLES / "condensebench-fashion-mnist.csv.gz"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == read_about(path)["csv"]["sha256"]
    assert part_of(DOCUMENT) == as_markdown(findings(path), read_about(path))
    assert path.stat().st_size < 2_000_000


def test_each_row_of_the_shipped_table_is_a_network_of_its_space_with_its_exact_cost_and_whole_images():
    path = TABLES / "condensebench-fashion-mnist.csv.gz"
    table, about = pandas.read_csv(path), read_about(path)
    bench = BENCHES["fashion-mnist"]
    assert SearchSpace.from_settings(about["space"]) == SearchSpace.from_settings(bench.space)
    assert TrainingSettings.model_validate(about["training"]) == bench.training
    assert DataSettings.model_validate(about["data"]) == bench.data.of_content()
    costs = {}
    for config in bench.configs():
        network = (config.groups, config.condense_factor, config.bottleneck, *config.stages, *config.growth)
        costs[network] = (cost_of(config).macs, cost_of(config).params)
    keys = list(table.columns[:7])
    assert [costs[tuple(row)] for row in table[keys].to_numpy()] == list(
        map(tuple, table[["macs", "params"]].to_numpy())
    )
    assert not table.duplicated([*keys, "seed"]).any()
    for name, images in (("top1", "validation_images"), ("test_top1", "test_images")):
        right = table[name] * about["images"][images]
        assert np.allclose(right, right.round(), atol=1e-6)
    assert table.top1_8.equals(table.top1)
    assert len(table) == about["csv"]["rows"] == sum(about["trainings"]["by_seed"].values())


def test_the_reader_gives_what_pandas_gives(shop, tmp_path):
    path = write_table(replace(shop, tables=tmp_path))
    columns, table = read_table(path), pandas.read_csv(path)
    assert list(columns) == list(table.columns)
    assert all(np.array_equal(columns[name], table[name].astype(float), equal_nan=True) for name in columns)


def test_the_command_writes_the_table_prints_its_findings_and_saves_them(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    work = ["condensebench", "--dataset", "digits", "--work", str(shop.folder)]
    monkeypatch.setattr("sys.argv", [*work, "--write", "--tables", str(tmp_path)])
    main()
    assert "**4 trainings** of 3 networks" in capsys.readouterr().out
    saved = json.loads((tmp_path / "results" / "condensebench_digits.json").read_text())
    assert saved["result"]["rows"] == 4
