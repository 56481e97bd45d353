"""A table as it is read: its rows, its settings, and every way in which it can be wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.condensebench.journal import read_rows
from benchmarks.condensebench.training import TRAININGS
from dashboards.formats import common_label, latency_label
from search.budget import Budget, refusal
from search.replay.latencies import RecordedLatencies
from search.replay.table import TABLES, ReplayTable, read_table
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import ReadOnlyFolder, TableUnreadable
from tests.search.replay.tiny_tables import TINY, UNTRAINED, rewritten
from workers.latency.record import LatencyKind, Measurement

NEVER = CondenseNetConfig(
    stages=(1, 1), growth=(4, 4), groups=4, condense_factor=1, bottleneck=2, input_shape=(1, 8, 8)
)


def test_a_row_is_what_its_training_reported(table: ReplayTable, table_path: Path):
    rows = read_rows(table_path.parent / TRAININGS)
    assert len(table.trainings) == len(rows) == 15
    for row in rows:
        training = table.trainings[CondenseNetConfig.from_dict(row["config"]), row["seed"]]
        assert [epoch.top1 for epoch in training.curve] == [epoch["val_top1"] for epoch in row["curve"]]
        assert [epoch.val_loss for epoch in training.curve] == pytest.approx(
            [epoch["val_loss"] for epoch in row["curve"]], rel=1e-5
        )
        assert (training.top1, training.test_top1) == (row["top1"], row["test_top1"])
        assert training.train_seconds == pytest.approx(row["train_seconds"], abs=0.01)


def test_the_settings_are_those_that_the_networks_were_trained_with(table: ReplayTable):
    assert (table.training, table.data) == (TINY.training, TINY.data.of_content())
    assert set(table.seeds) == set(TINY.configs()[:-UNTRAINED])
    assert all(table.space.contains(config) for config in table.seeds)
    assert table.images.num_classes == 10


def test_latencies_are_estimates_of_one_device_and_the_fastest_runtime_is_known(table: ReplayTable):
    origin = table.latency
    assert (origin.kind, origin.device, origin.threads) == (LatencyKind.ESTIMATED, "virtual:raspberry-pi-5", 1)
    assert origin.runtimes == {"native": "2", "onnxruntime": "1"}
    assert "native" in origin.extrapolates  # its profile was calibrated on another runtime
    assert table.fastest_runtime == "native"
    config = TINY.configs()[0]
    native, other = (table.latency_of(config, runtime) for runtime in ("native", "onnxruntime"))
    assert native is not None
    assert other is not None
    assert native.low_ms < native.median_ms < other.median_ms < other.high_ms


def test_what_is_not_recorded_is_refused_with_the_reason(table: ReplayTable):
    config, *_ = TINY.configs()
    assert table.refusal(config, 0) is table.refusal(config, 1) is None
    assert "never trained" in str(table.refusal(NEVER, 0))
    assert "with seed 0, 1, but not with seed 7" in str(table.refusal(config, 7))
    assert table.latency_of(NEVER, "native") is None


def test_a_network_without_counts_has_no_latency(table_path: Path, tmp_path: Path):
    def uncounted(lines):
        lines[0].update({name: "" for name in lines[0] if name.startswith("pi5_native")})

    table = read_table(str(rewritten(table_path, tmp_path, uncounted)))
    without = [config for config in table.seeds if table.latency_of(config, "native") is None]
    assert len(without) == 1
    assert table.latency_of(without[0], "onnxruntime") is not None


def test_the_shipped_table_can_be_read_by_its_short_name():
    table = read_table("condensebench")
    assert table.name == "condensebench-fashion-mnist"
    assert len(table.trainings) >= 50
    assert all(training.top1 > 0.5 for training in table.trainings.values())
    assert table.space.size == 648


def test_a_name_that_no_table_has_is_refused_with_those_there_are():
    for name in ("condensbench", "../tables/condensebench-fashion-mnist", "", "x" * 5000, "a\0b"):
        with pytest.raises(TableUnreadable, match="condensebench-fashion-mnist"):
            read_table(name)


def test_a_file_that_is_gone_or_something_else_is_one_line(table_path: Path, tmp_path: Path):
    copy = rewritten(table_path, tmp_path)
    about = copy.with_name(copy.name.replace(".csv.gz", ".json"))
    for content, message in ((b"", "SHA-256"), (copy.read_bytes()[:-9], "SHA-256"), (None, "can't be read")):
        copy.unlink() if content is None else copy.write_bytes(content)
        with pytest.raises(TableUnreadable, match=message):
            read_table(str(copy))
    for text, message in (
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must say format 1"),
        ('{"format": 2}', "must say format 1"),
    ):
        about.write_text(text)
        with pytest.raises(TableUnreadable, match=message):
            read_table(str(copy))
    about.unlink()
    with pytest.raises(TableUnreadable, match="belongs beside the CSV"):
        read_table(str(copy))


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08"])
def test_what_is_no_gzipped_csv_is_refused_even_with_its_own_hash(content: bytes, table_path: Path, tmp_path: Path):
    import hashlib

    sha256 = hashlib.sha256(content).hexdigest()
    copy = rewritten(table_path, tmp_path, about=lambda about: about["csv"].update(sha256=sha256))
    copy.write_bytes(content)
    with pytest.raises(TableUnreadable, match=r"gzipped|columns"):
        read_table(str(copy))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("top1", "nan", "top1 must be a number, but is 'nan'"),
        ("top1", "1.5", "0 <= top1 <= 1 must hold, but got 1.5"),
        ("top1", "", "top1 must have a value"),
        ("top1", "0.001", "must be that of the last epoch"),
        ("top1_2", "inf", "top1_2 must be a number"),
        ("val_loss_1", "", "val_loss_1 must have a value"),
        ("train_seconds", "-1", "train_seconds >= 0 must hold"),
        ("seed", "0.5", "seed must be a whole number"),
        ("macs", "17", "but the table says 17"),
        ("params", "17", "but the table says 17"),
        ("groups", "3", "groups=3"),
        ("growth_2", "5", "growth_2=5"),
        ("layers_2", "", "num_stages=1"),
        ("pi5_native_low_ms", "99", "0 < low <= median <= high must hold"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(column, value, message, table_path: Path, tmp_path: Path):
    copy = rewritten(table_path, tmp_path, lambda lines: lines[4].update({column: value}))
    with pytest.raises(TableUnreadable, match="line 6") as caught:
        read_table(str(copy))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_column_a_row_twice_and_no_row_are_refused(table_path: Path, tmp_path: Path):
    with pytest.raises(TableUnreadable, match="recorded twice"):
        read_table(str(rewritten(table_path, tmp_path / "twice", lambda lines: lines.append(lines[0]))))
    with pytest.raises(TableUnreadable, match="holds no training"):
        read_table(str(rewritten(table_path, tmp_path / "none", lambda lines: lines.clear())))


@pytest.mark.parametrize(
    "part", ["space", "data", "images", "training", "latency", "csv"], ids=lambda part: f"without {part}"
)
def test_a_json_that_lacks_a_part_is_refused(part: str, table_path: Path, tmp_path: Path):
    copy = rewritten(table_path, tmp_path, about=lambda about: about.pop(part))
    with pytest.raises(TableUnreadable, match="doesn't describe it"):
        read_table(str(copy))


@pytest.mark.parametrize("name", ["x" * 5000 + ".csv.gz", "~nobody-of-this-name/t.csv.gz", "a\0b.csv.gz"])
def test_a_path_that_no_file_can_have_is_one_line(name: str):
    with pytest.raises((TableUnreadable, ReadOnlyFolder)) as caught:
        read_table(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about["training"].update(epochs=4), "says training.epochs 4, but its learning curves have 3"),
        (lambda about: about["images"].update(input_shape=[1, 9, 9]), r"images.input_shape \(1, 9, 9\)"),
        (lambda about: about["images"].update(input_shape=[1, 64]), r"images.input_shape \(1, 64\)"),
        (lambda about: about["images"].update(num_classes=9), "images.num_classes 9"),
        (lambda about: about["images"]["class_names"].pop(), "the number of images.class_names 9"),
        (lambda about: about["data"].update(image_size=16), r"data.image_size \[16, 16\]"),
        (lambda about: about["data"].update(channels=3), "data.channels 3"),
        (lambda about: about["latency"].update(kind="guessed"), "must be one of measured, estimated, predicted"),
        (lambda about: about["latency"].update(kind=["measured"]), "must be one of measured, estimated, predicted"),
        (lambda about: about["latency"].update(device="host"), "'host' would be the machine that replays it"),
        (lambda about: about["latency"].update(device="host:some-cpu"), "must name the device"),
        (lambda about: about["latency"].update(device=" "), "must name the device"),
    ],
)
def test_a_json_that_contradicts_itself_or_the_csv_is_refused(change, message, table_path: Path, tmp_path: Path):
    with pytest.raises(TableUnreadable, match=message):
        read_table(str(rewritten(table_path, tmp_path, about=change)))


def test_a_table_may_claim_measured_latencies_which_are_then_shown_as_its_own(table_path: Path, tmp_path: Path):
    def claims(about):
        about["latency"].update(kind="measured", device="pi5")

    table = read_table(str(rewritten(table_path, tmp_path, about=claims)))
    latency = RecordedLatencies(table, "native", 0).of(TINY.configs()[0])
    assert isinstance(latency, Measurement)
    assert (latency.kind, latency.device) == ("measured", "pi5")
    assert latency_label(latency).startswith("measured, replayed")
    assert common_label(latency) == "measured, replayed"
    assert str(refusal(Budget(max_latency_ms=1e-9), 1, 1, latency)).endswith("ms, measured, replayed")


def test_an_archive_is_unpacked_only_up_to_the_most_that_is_read(monkeypatch, table_path: Path):
    monkeypatch.setattr("search.replay.table.MOST_BYTES", 2000)
    with pytest.raises(TableUnreadable, match="longer than 2,000 bytes once it is unpacked"):
        read_table(str(table_path))


def test_a_table_of_another_space_is_refused(table_path: Path, tmp_path: Path):
    copy = rewritten(table_path, tmp_path, about=lambda about: about["space"].update(groups=[4]))
    with pytest.raises(TableUnreadable, match="line 2"):
        read_table(str(copy))


def test_a_copied_table_is_the_same_but_for_where_it_is(table: ReplayTable, table_path: Path, tmp_path: Path):
    for file in (table_path, table_path.with_name(table_path.name.replace(".csv.gz", ".json"))):
        shutil.copy(file, tmp_path)
    copy = read_table(str(tmp_path / table_path.name))
    assert replace(copy, name=table.name) == table


def test_every_shipped_table_says_how_it_was_made_and_has_the_macs_of_its_networks():
    names = [path.name.removesuffix(".csv.gz") for path in TABLES.glob("*.csv.gz")]
    assert names
    for name in names:
        table = read_table(name)
        about = json.loads((TABLES / f"{name}.json").read_text())
        assert about["csv"]["rows"] == len(table.trainings)
        assert all(cost_of(config).macs > 0 for config in table.seeds)
