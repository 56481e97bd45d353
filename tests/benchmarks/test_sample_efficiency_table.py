"""A table that is replayed: what a column becomes, what is left out, what is refused."""

from __future__ import annotations

import gzip
import itertools
import math
from pathlib import Path

import pytest

from benchmarks.sample_efficiency.table import Columns, Table, read_table
from benchmarks.sample_efficiency.table_file import UnusableTable

HEADER = "depth,width,block,ms,macs,top1,proxy,seed"
COLUMNS = Columns(["depth", "width", "block"], "top1", ["ms"])


def rows(seed: int = 0) -> list[str]:
    """24 networks: deeper and wider is better and slower, block b is better for nothing."""
    return [
        f"{d},{w},{'ab'[b]},{d * w + b},{d * w * 10},{0.5 + 0.04 * d + 0.01 * math.log(w) + 0.005 * b},{d},{seed}"
        for d, w, b in itertools.product((1, 2, 10), (8, 16, 32, 64), (0, 1))
    ]


def written(folder: Path, lines: list[str], header: str = HEADER) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return read_table(written(tmp_path, rows()), COLUMNS)


def test_numbers_become_ordinals_in_their_order_and_other_values_categories(table: Table) -> None:
    depth, _, block = table.parameters
    assert (depth.values, depth.ordered, depth.choices) == (("1", "2", "10"), True, (0, 1, 2))
    assert (block.values, block.ordered, block.choices) == (("a", "b"), False, ("a", "b"))
    row = table.row({"depth": 2, "width": 0, "block": "b"})
    assert row is not None
    assert table.costs[row, 0] == 81
    assert table.params(row) == {"depth": 2, "width": 0, "block": "b"}
    assert table.coverage == 1


def test_a_setting_that_a_network_lacks_comes_before_all_numbers(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, [*rows(), ",8,a,3,3,0.4,1,0"]), COLUMNS)
    assert table.parameters[0].values == ("", "1", "2", "10")


def test_a_column_of_numbers_can_be_categorical(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, rows()), Columns(["categorical:depth", "width", "block"], "top1", ["ms"]))
    assert not table.parameters[0].ordered


def test_an_architecture_of_nasbench201_has_six_edges(tmp_path: Path) -> None:
    lines = [
        "|none~0|+|skip~0|conv~1|+|skip~0|conv~1|pool~2|,1,0.5",
        "|conv~0|+|skip~0|conv~1|+|none~0|conv~1|pool~2|,2,0.6",
    ]
    table = read_table(written(tmp_path, lines, "arch,ms,top1"), Columns(["nasbench201:arch"], "top1", ["ms"]))
    assert [parameter.name for parameter in table.parameters] == ["arch_1", "arch_4"]  # the others are the same in all
    assert table.configs == (("none", "skip"), ("conv", "none"))


def test_an_edge_and_a_column_of_one_name_are_refused(tmp_path: Path) -> None:
    lines = [f"|none~0|+|skip~0|conv~1|+|skip~0|conv~1|pool~2|,{deep},{deep},0.{deep}" for deep in (1, 2)]
    path = written(tmp_path, lines, "arch,arch_1,ms,top1")
    for params in (["nasbench201:arch", "arch_1"], ["arch_1", "nasbench201:arch"]):
        with pytest.raises(UnusableTable, match="'arch_1' is both a column and an edge"):
            read_table(path, Columns(params, "top1", ["ms"]))


def test_where_chooses_rows_by_text_or_number_and_a_gzipped_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *rows(0), *rows(1)]).encode()))
    table = read_table(path, Columns(COLUMNS.params, "top1", ["ms"], where=[("seed", "1.0"), ("block", "a")]))
    assert len(table.configs) == 12


def test_repeated_rows_and_rows_without_an_accuracy_are_left_out_and_said(tmp_path: Path) -> None:
    lines = [*rows(), rows()[0], "1,128,a,9,9,nan,1,0", "1,256,a,9,9,,1,0"]
    table = read_table(written(tmp_path, lines), COLUMNS)
    assert len(table.configs) == 24
    assert table.left_out == ("2 rows without a number in top1 left out", "1 row that repeats an earlier one left out")


BAD = {
    "column 'acc' must be in the table": (rows(), Columns(["depth"], "acc", ["ms"])),
    "column 'stage' must be in the table": (rows(), Columns(["stage"], "top1", ["ms"])),
    "must have rows with seed=7": (rows(), Columns(["depth"], "top1", ["ms"], where=[("seed", "7")])),
    "must have rows": ([], COLUMNS),
    "accuracies must differ, but top1 is 0.5": (["1,8,a,1,1,0.5,0,0", "2,8,a,2,1,0.5,0,0"], COLUMNS),
    "a cost must differ between networks, but ms is 1": (["1,8,a,1,1,0.5,0,0", "2,8,a,1,1,0.6,0,0"], COLUMNS),
    "costs must be above 0": (["1,8,a,0,1,0.5,0,0", "2,8,a,1,1,0.6,0,0"], COLUMNS),
    "'top1' must hold numbers": (["1,8,a,0,1,nan,0,0"], COLUMNS),
    "a network must have one result": ([*rows(), "1,8,a,1,80,0.9,1,0"], COLUMNS),
    "a parameter must have more than one value": (["1,8,a,1,1,0.5,0,0", "1,8,a,1,1,0.5,0,0"], COLUMNS),
    "line 3 must have 8 fields, but has 2": (["1,8,a,1,1,0.5,0,0", "1,2"], COLUMNS),
    "a NAS-Bench-201 architecture is": (rows(), Columns(["nasbench201:block"], "top1", ["ms"])),
    "--params knows": (rows(), Columns(["power:depth"], "top1", ["ms"])),
}
TWICE = {
    "'top1' is in --accuracy and --features": Columns(["depth"], "top1", ["ms"], ["proxy", "top1"]),
    "'top1' is in --params and --accuracy": Columns(["depth", "categorical:top1"], "top1", ["ms"]),
    "'ms' is in --accuracy and --costs": Columns(["depth"], "ms", ["ms"]),
    "'ms' is in --costs and --features": Columns(["depth"], "top1", ["ms"], ["ms"]),
    "'ms' is in --costs twice": Columns(["depth"], "top1", ["ms", "ms"]),
    "'width' is in --params and --features": Columns(["depth", "width"], "top1", ["ms"], ["width"]),
    "'depth' is in --params twice": Columns(["depth", "categorical:depth"], "top1", ["ms"]),
    "'top1' is in --accuracy and --same": Columns(["depth"], "top1", ["ms"], same="top1"),
}


@pytest.mark.parametrize("said", BAD)
def test_a_table_that_cannot_be_replayed_is_refused_in_one_line(said: str, tmp_path: Path) -> None:
    lines, columns = BAD[said]
    with pytest.raises(UnusableTable) as error:
        read_table(written(tmp_path, lines), columns)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("said", TWICE)
def test_a_column_is_one_thing_so_that_no_sampler_is_told_the_answer(said: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableTable) as error:
        read_table(written(tmp_path, rows()), TWICE[said])
    assert str(error.value) == f"a column must be one thing, but {said}."


def test_rows_may_be_chosen_by_a_column_that_is_something_else_too(tmp_path: Path) -> None:
    columns = Columns(COLUMNS.params, "top1", ["ms"], ["proxy"], where=[("depth", "1"), ("proxy", "1")])
    assert len(read_table(written(tmp_path, rows()), columns).configs) == 8


def test_a_byte_order_mark_and_blank_lines_at_the_end_are_no_part_of_a_table(tmp_path: Path, table: Table) -> None:
    path = written(tmp_path, rows())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n  \n\n")
    assert read_table(path, COLUMNS).configs == table.configs
    with pytest.raises(UnusableTable, match="line 3 must have 8 fields, but has 0"):
        read_table(written(tmp_path, [rows()[0], "", *rows()[1:]]), COLUMNS)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableTable, match="a column must be in the table once, but 2 are named 'ms'"):
        read_table(written(tmp_path, rows(), HEADER.replace("macs", "ms")), COLUMNS)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.csv").write_bytes(b"\x1f\x8b broken")
    for name, said in (("no.csv", "something else"), ("missing.csv", "can be read")):
        with pytest.raises(UnusableTable, match=said):
            read_table(tmp_path / name, COLUMNS)
