"""CSV in every way that programs write it, read as the standard library's reader reads the plain one."""

from __future__ import annotations

import csv
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid.errors import FormatError, MissingInputError, SesgridWarning
from sesgrid.sources.csv_table import list_csv, read_csv
from sesgrid.sources.number_text import read_numbers

HEADER = ["code", "nom", "Libellé", "valeur"]
ROWS = [["1", "forêt", "a", "1.5"], ["2", "été; hiver", "b,c", "2"], ["3", "mer", "", ""]]


def written(separator: str = ";", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator=end, quoting=quoting).writerows(
        [HEADER, *ROWS]
    )
    return out.getvalue()


def read(path: Path, content: bytes | str) -> tuple[tuple[str, ...], list[list[str | None]]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    [table] = list_csv(path)
    frame = read_csv(table, ["nom", "valeur", "code"])
    return table.columns, [[None if pd.isna(v) else v for v in row] for row in frame.to_numpy()]


EXPECTED = [[row[1], row[3] or None, row[0]] for row in ROWS]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [";", ",", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_line_ends_separators_and_encodings(
    tmp_path: Path, end: str, separator: str, encoding: str
) -> None:
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        text = written(separator, end, quoting)
        assert read(tmp_path / "a.csv", text.encode(encoding)) == (tuple(HEADER), EXPECTED)


def test_windows_1252_is_read_and_told_only_where_it_is_read(tmp_path: Path) -> None:
    content = written().encode("cp1252")
    with pytest.warns(SesgridWarning, match=r"a\.csv, column 'nom'.*Windows-1252.*row 1: 'forêt'"):
        assert read(tmp_path / "a.csv", content) == (tuple(HEADER), EXPECTED)
    [table] = list_csv(tmp_path / "a.csv")
    assert read_csv(table, ["code"])["code"].tolist() == ["1", "2", "3"]
    mixed = content + "4;forêt;;\n".encode()
    with pytest.raises(FormatError, match=r"column 'nom': row 4 is UTF-8, others are not"):
        read(tmp_path / "a.csv", mixed)


@pytest.mark.parametrize(
    "change",
    {
        "empty names at the end": lambda t: t.replace("\n", ";;;\n"),
        "empty names of the header only": lambda t: t.replace("valeur\n", "valeur;;\n"),
        "empty fields of the rows only": lambda t: t.replace("\n", ";;\n").replace("r;;\n", "r\n"),
        "blank lines": lambda t: "\n\n" + t.replace("\n", "\n\n  \n"),
        "the separator on a line of its own": lambda t: "sep=;\n" + t,
        "white space": lambda t: t.replace(";v", "; v").replace("mer", " mer\u00a0"),
        "a quote inside a field": lambda t: t.replace("a;1.5", '5" a;1.5'),
        "names that repeat, not read": lambda t: t.replace("Libellé", "x").replace("\n", ";\n"),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_people_do_to_a_csv(tmp_path: Path, change) -> None:
    assert read(tmp_path / "a.csv", change[1](written()))[1] == EXPECTED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("mer;;", "mer;"), r"line 4: expected 4 fields separated by ';', .* 3"),
        (lambda t: t.replace("mer;;", "mer;;;"), "line 4: expected 4 .* received 5"),
        (lambda t: "\r\n" + t.replace("mer;;", "mer"), "line 5: expected 4 .* received 2"),
        (lambda t: t + "Total : 3\n", "line 5: expected 4 fields"),
        (lambda t: t.replace("forêt", "for\0t"), "line 2: a null character"),
        (lambda t: t.replace(";1.5", ';"1.5'), "line 3: expected 4 fields"),
        (lambda t: t + '4;x;;"\n5;y;;\n', "line 5: a quote begins there that is not closed"),
        (lambda t: "\n \n", "is empty: expected a header"),
        (lambda t: "x" * 2**18, "no line ends in its first 262144 bytes"),
    ],
)
def test_damaged_rows_are_refused_by_line(tmp_path: Path, change, message: str) -> None:
    with pytest.raises(FormatError, match=rf"a\.csv:?.*{message}"):
        read(tmp_path / "a.csv", change(written()))


def test_what_may_be_lost_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with pytest.warns(SesgridWarning, match="last line has no line end"):
        assert read(path, written().rstrip("\n"))[1] == EXPECTED
    with pytest.warns(SesgridWarning, match="2 rows are empty in nom, valeur, code"):
        assert read(path, written() + ";;;\n;;x;\n")[1] == EXPECTED
    # two stray quotes make one row of two
    with pytest.warns(SesgridWarning, match="1 lines lie inside quoted fields.*after line 5"):
        assert len(read(path, written() + '4;x;"a;1\n5;y;b";2\n')[1]) == 4
    with pytest.warns(SesgridWarning, match="1 lines lie inside quoted fields.*after line 2"):
        assert read(path, written().replace(";a;", ';"a\nb";'))[1] == EXPECTED


def test_cut_or_odd_text_in_two_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"a\.csv, as UTF-16, cannot be read"):
        read(tmp_path / "a.csv", written().encode("utf-16")[:-1])
    with pytest.raises(MissingInputError, match="no such file"):
        list_csv(tmp_path / "b.csv")


NUMBERS = {
    # as written → value, or None where it is refused
    ("1 234,5", "3"): (1234.5, 3),
    ("1.234,5", "1.234"): (1234.5, 1234),
    ("1,234.5", "1,234"): (1234.5, 1234),
    ("1\u202f234,5", "1,234"): (1234.5, 1.234),
    ("1\u00a0234.5", "1.234"): (1234.5, 1.234),
    ("1'234.5", "12"): (1234.5, 12),
    ("10,5", "1,234"): (10.5, 1.234),
    ("10.5", "1.234"): (10.5, 1.234),
    ("12345,678", "0,123"): (12345.678, 0.123),
    ("1.234.567", "1.234"): (1234567, 1234),
    ("-1,5e3", "+2"): (-1500, 2),
    ("10,5", "20.5"): (10.5, 20.5),
    ("1,234", "12"): (None, 12),
    ("10.5", "1,234"): (10.5, None),
    ("10,5", "1.234"): (10.5, None),
    ("1.234,5", "1,234.5", "1,234"): (1234.5, 1234.5, None),
}


@pytest.mark.parametrize("texts", list(NUMBERS), ids=" and ".join)
def test_numbers_as_people_write_them(texts: tuple[str, ...]) -> None:
    for columns in ({"a": list(texts)}, {str(k): [t] for k, t in enumerate(texts)}):
        read = read_numbers({k: pd.Series(v) for k, v in columns.items()})
        values = np.concatenate([n.values for n in read.values()])
        unclear = np.concatenate([n.ambiguous for n in read.values()])
        assert not any(n.odd.any() for n in read.values())
        assert unclear.tolist() == [v is None for v in NUMBERS[texts]]
        assert values[~unclear].tolist() == [v for v in NUMBERS[texts] if v is not None]


@pytest.mark.parametrize(
    "odd", ["x", "1 23", "1,2,3", "1.2,3.4", "inf", "nan", "1e999", ",", "1_0"]
)
def test_what_is_no_number(odd: str) -> None:
    for other in ("1.5", "1,5"):
        found = read_numbers({"a": pd.Series([other, odd, None])})["a"]
        assert found.odd.tolist() == [False, True, False]
        assert np.isnan(found.values[1:]).all()


GROUPINGS = [(".", ""), (",", ""), (",", "."), (".", ","), (",", "\u202f"), (",", " ")]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=8), st.sampled_from(GROUPINGS))
def test_a_file_of_one_custom_is_read_right(tenths: list[int], custom: tuple[str, str]) -> None:
    """Numbers of one decimal can be read in one way, whatever sets their thousands apart."""
    mark, group = custom
    texts = [
        f"{n / 10:,.1f}".replace(",", "g").replace(".", mark).replace("g", group) for n in tenths
    ]
    found = read_numbers({"a": pd.Series(texts)})["a"]
    assert found.values.tolist() == [n / 10 for n in tenths]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not found.ambiguous.any()


def test_a_name_that_is_not_in_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"d\xe9p.csv")  # as archives of other systems leave them
    path.write_text("code,nom\n1,a\n")
    assert read_csv(list_csv(path)[0], ["nom"])["nom"].tolist() == ["a"]
