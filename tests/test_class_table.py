"""Tables of codes: what is refused, which row counts, and the two that come with sesgrid."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid import read_class_table
from sesgrid.errors import FormatError, MissingInputError, SesgridWarning
from sesgrid.report.palette import landcover_colours
from sesgrid.sources import CLASS_TABLES, class_groups, class_names
from sesgrid.sources.class_lookup import ClassLookup

PAIRS = "code_cs,code_us,landcover_class\nCS1,US5,homes\nCS1,,other\n,US4,roads\nCS9,,\n"


def table_of(tmp_path, text: str | bytes) -> pd.DataFrame:
    raw = text.encode() if isinstance(text, str) else text
    (tmp_path / "t.csv").write_bytes(raw)
    return read_class_table(tmp_path / "t.csv")


def names_of(table: pd.DataFrame, **codes: list) -> list:
    found = ClassLookup(table).of(pd.DataFrame(codes))
    return [None if pd.isna(n) else n for n in found.name]


def test_the_row_with_the_most_codes_counts(tmp_path):
    table = table_of(tmp_path, PAIRS)
    assert table.loc[("CS1", "US5"), "value"] == 1
    assert names_of(table, code_cs=["CS1", "CS1", "CS2", "CS9"], code_us=["US5", "US3", "US4", "US4"]) == [
        "homes", "other", "roads", None,
    ]  # fmt: skip
    # a code that is missing is matched by rows that ask for none, and only by them
    missing = names_of(table, code_cs=["CS1", None, "", np.nan], code_us=[None, "US4", "US4", None])
    assert missing == ["other", "roads", "roads", None]
    assert names_of(table, code_cs=["CS1", "CS2"]) == ["other", None]


def test_what_is_unknown_or_doubtful_is_counted(tmp_path):
    table = table_of(tmp_path, PAIRS)
    codes = pd.DataFrame(
        {"code_cs": ["CS1", "CS1", "CS7", None], "code_us": ["US4", "US5", "US1", None]}
    )
    lookup = ClassLookup(table)
    found = lookup.of(codes)
    # as many codes in both rows: that of the column further to the left
    assert found.value.tolist() == [2, 1, 0, 0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lookup.tell(codes, found, "a.gpkg")
    assert [str(w.message) for w in caught] == [
        "a.gpkg: 2 of 4 polygons have codes that t.csv does not know, and belong to no class: "
        "CS7 / US1 (1), missing / missing (1)",
        "a.gpkg: 1 of 4 polygons match rows of several classes in t.csv, of which the codes further to the "
        "left count (add a row for both): CS1 / US4 (1)",
    ]
    assert {w.category for w in caught} == {SesgridWarning}
    with pytest.raises(
        FormatError, match=r"knows the codes of none of its 1 polygons.*CS7 / US1 \(1\)"
    ):
        lookup.tell(codes[2:3], lookup.of(codes[2:3]), "a.gpkg")
    # what the table knows to be of no class is known
    lookup.tell(nothing := pd.DataFrame({"code_cs": ["CS9"]}), lookup.of(nothing), "a.gpkg")


CODES = st.sampled_from(["", "a", "b", "c"])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.sets(st.tuples(CODES, CODES, CODES).filter(any), min_size=1, max_size=12),
    asked=st.lists(st.tuples(CODES, CODES, CODES), min_size=1, max_size=8),
)
def test_the_row_that_counts_is_the_one_a_plain_search_finds(rows, asked):
    rows = sorted(rows)
    table = pd.DataFrame(
        {"landcover_class": [f"c{i}" for i in range(len(rows))], "value": np.arange(len(rows)) + 1},
        index=pd.MultiIndex.from_tuples(rows, names=["x", "y", "z"]),
    )
    found = ClassLookup(table).of(pd.DataFrame(asked, columns=["x", "y", "z"]))
    for key, value, known, doubtful in zip(
        asked, found.value, found.known, found.doubtful, strict=True
    ):
        hits = [r for r in rows if all(c in ("", k) for c, k in zip(r, key, strict=True))]
        most = max((sum(map(bool, r)) for r in hits), default=0)
        best = sorted(
            (r for r in hits if sum(map(bool, r)) == most), key=lambda r: [not c for c in r]
        )
        assert known == bool(best)
        assert value == (rows.index(best[0]) + 1 if best else 0)
        assert doubtful == (len(best) > 1)


@pytest.mark.parametrize(
    "column",
    [
        ["7", "12"],
        [7, 12],
        [7.0, 12.0],
        ["07", " 12 "],
        ["007", "12.0"],
        pd.array([7, 12], dtype="Int64"),
    ],
)
def test_numbers_are_codes_however_they_are_written(tmp_path, column):
    table = table_of(tmp_path, "code,landcover_class\n07,a\n12,b\n")
    assert table.index.tolist() == [7, 12]
    assert names_of(table, code=column) == ["a", "b"]


def test_case_and_forms_of_accents_do_not_matter(tmp_path):
    table = table_of(tmp_path, "classe,landcover_class\nBâtiment,a\n")
    assert names_of(table, classe=["Ba\u0302timent", "BÂTIMENT ", "Batiment"]) == ["a", "a", None]


@pytest.mark.parametrize(
    "text",
    [
        "code;landcover_class;group\r\n1;a;x\r\n2;b;y\r\n;;\r\n",
        "code,landcover_class,group\r1,a,x\r2,b,y\r",
        "\ufeffCode, Landcover_Class ,GROUP,,\n1,a,x,,\n\n2,b,y\n",
        'group,name,landcover_class,code\nx,"one, two",a,1\ny,,b,2\n',
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path, text):
    table = table_of(tmp_path, text)
    assert table.index.tolist() == [1, 2]
    assert table.index.name == "code"
    assert class_groups(table) == {"a": "x", "b": "y"}


@pytest.mark.parametrize("nothing", ["NA", "nan", "None", "null", ""])
def test_what_programs_write_for_nothing_is_no_class(tmp_path, nothing):
    table = table_of(tmp_path, f"code,landcover_class,group\n1,a,{nothing}\n2,{nothing},\n3,Na,b\n")
    assert names_of(table, code=[1, 2, 3]) == ["a", None, "Na"]
    assert class_groups(table) == {"a": "other", "Na": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,landcover_class\nx,,k\n,,k\n", "at least one a row; received ' / ' in line 3"),
        ("a,b,landcover_class\nx,y,k\nX,y,l\n", "every code once, .* received 'X / y' in line 3"),
        ("a,b,landcover_class\nx,y,k,l\n", r"line 2: 4 cells, and 3 columns"),
        ("a,A,landcover_class\nx,y,k\n", "column names repeat"),
        ("landcover_class,group\nx,y\n", "missing code"),
        ("a,b\nx,y\n", "missing landcover_class"),
        ("a,b,c,d,e,landcover_class\n1,1,1,1,1,k\n", "5 columns of codes"),
        (
            "code,landcover_class,group\n1,a,x\n2,b,y\n3,a,y\n",
            "'a' is in two groups, 'x' and, in line 4, 'y'",
        ),
        ("code,landcover_class\n1,unclassified\n", "is called 'unclassified'"),
        (
            b"code,landcover_class\n1,\xe9t\xe9\n2,\xc3\xa9\n",
            "line 2: it is not in UTF-8, other lines",
        ),
        (b"code,landcover_class\n1,\x81\n", "save it as UTF-8"),
        ("code,landcover_class\n\n1,a\n2,\0\n", "line 4: a null character"),
        ('code,landcover_class\n1,a\n2,"b\n3,c\n', "line 3: unexpected end of data"),
        ("", "is empty: expected a header"),
    ],
)
def test_tables_without_one_meaning_are_refused(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        table_of(tmp_path, text)


HOMES = "code;Landcover Class;group\n7;forêt;nature\n8;été, mer;nature\n9;;\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize(
    "change",
    {
        "plain": lambda t: t,
        "carriage returns": lambda t: t.replace("\n", "\r"),
        "tabs": lambda t: t.replace(";", "\t"),
        "blank lines and empty names": lambda t: "\n" + t.replace("\n", ";;\n\n"),
        "other order of columns": lambda t: (
            "\n".join(";".join(line.split(";")[::-1]) for line in t.splitlines()) + "\n"
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_tables_in_any_encoding_line_ends_and_order(tmp_path, change, encoding):
    table = table_of(tmp_path, change[1](HOMES).encode(encoding))
    assert table.index.tolist() == [7, 8, 9]
    assert table["landcover_class"].fillna("none").tolist() == ["forêt", "été, mer", "none"]
    assert table["group"].tolist() == ["nature", "nature", "other"]


def test_what_a_table_may_have_lost_is_told(tmp_path):
    with pytest.warns(SesgridWarning, match="read as Windows-1252 .first in line 2"):
        table = table_of(tmp_path, HOMES.encode("cp1252"))
    assert class_names(table) == ("forêt", "été, mer")
    with pytest.warns(SesgridWarning, match="its last line has no line end"):
        assert class_names(table_of(tmp_path, HOMES.rstrip("\n"))) == ("forêt", "été, mer")
    with pytest.warns(SesgridWarning, match="lines 2 to 3 are one row"):
        assert len(table_of(tmp_path, HOMES.replace("forêt;nature\n8;été, mer", '"a;\n8;b"'))) == 2
    with pytest.warns(SesgridWarning, match="the column 'groupe' is not read; call it 'group'"):
        assert table_of(tmp_path, HOMES.replace("group", "groupe"))["group"].unique() == ["other"]


def test_a_group_is_told_once(tmp_path):
    table = table_of(tmp_path, "code,landcover_class,group\n1,a,\n2,a,x\n3,b,\n4,,y\n")
    assert table["group"].tolist() == ["x", "x", "other", "y"]
    assert class_groups(table) == {"a": "x", "b": "other"}


@pytest.mark.parametrize("other", ["Forêt", "FORÊT", "fore\u0302t", "la  forêt", "la\u00a0forêt"])
def test_a_class_is_one_however_it_is_spelt(tmp_path, other):
    first = "la forêt" if "la" in other else "forêt"
    with pytest.warns(SesgridWarning, match="1 rows spell a class otherwise .*line 3"):
        table = table_of(tmp_path, f"code,landcover_class,group\n1,{first},x\n2,{other},x\n3,b,y\n")
    assert table["value"].tolist() == [1, 1, 2]
    assert class_names(table) == (first, "b")
    with (
        pytest.warns(SesgridWarning, match="spell a class otherwise"),
        pytest.raises(FormatError, match="is in two groups"),
    ):
        table_of(tmp_path, f"code,landcover_class,group\n1,{first},x\n2,{other},y\n")


def test_a_name_is_no_file_and_a_file_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        MissingInputError, match=r"no table of classes at ocsgeo; .*'ocsge', 'cosia'"
    ):
        read_class_table("ocsgeo")
    (tmp_path / "cosia").write_text("code,landcover_class\n1,mine\n")
    assert class_names(read_class_table("cosia"))[0] == "building"
    assert class_names(read_class_table(tmp_path / "cosia")) == ("mine",)


def test_the_tables_that_come_along():
    for name in CLASS_TABLES:
        table = read_class_table(name)
        groups = table.dropna(subset="landcover_class").groupby("landcover_class")["group"]
        assert (groups.nunique() == 1).all()
        assert table.attrs["source"] == name
        assert "other" not in set(table["group"])
    # IGN's nomenclature of covers, with every use: no pair is unknown, none is doubtful
    covers = [
        "1.1.1.1",
        "1.1.1.2",
        "1.1.2.1",
        "1.1.2.2",
        "1.2.1",
        "1.2.2",
        "1.2.3",
        "2.1.1.1",
        "2.1.1.2",
    ]
    covers += ["2.1.1.3", "2.1.2", "2.1.3", "2.2.1", "2.2.2"]
    uses = [
        "1.1",
        "1.2",
        "1.3",
        "1.4",
        "1.5",
        "2",
        "3",
        "235",
        "4.1.1",
        "4.1.2",
        "4.1.3",
        "4.1.4",
        "4.1.5",
    ]
    uses += ["4.2", "4.3", "5", "6.1", "6.2", "6.3", "6.6"]
    pairs = list(itertools.product(covers, uses))
    codes = pd.DataFrame(
        {"code_cs": [f"CS{c}" for c, _ in pairs], "code_us": [f"US{u}" for _, u in pairs]}
    )
    ocsge = read_class_table("ocsge")
    found = ClassLookup(ocsge).of(codes)
    assert found.known.all()
    assert not found.doubtful.any()
    assert (found.value > 0).all()
    assert set(found.value) == set(ocsge["value"])
    # CoSIA says the same twice: by its name or its number
    named = [
        "Bâtiment",
        "Zone perméable",
        "Zone imperméable",
        "Piscine",
        "Sol nu",
        "Surface eau",
        "Neige",
    ]
    named += [
        "Conifère",
        "Feuillu",
        "Broussaille",
        "Vigne",
        "Pelouse",
        "Culture",
        "Terre labourée",
        "Serre",
    ]
    cosia = read_class_table("cosia")
    assert ClassLookup(cosia).of(pd.DataFrame({"classe": named})).value.tolist() == list(
        range(1, 16)
    )
    assert ClassLookup(cosia).of(pd.DataFrame({"numero": range(1, 16)})).value.tolist() == list(
        range(1, 16)
    )
    both = ClassLookup(cosia).of(pd.DataFrame({"numero": range(1, 16), "classe": named}))
    assert not both.doubtful.any()


@pytest.mark.parametrize("table", [*CLASS_TABLES, None])
def test_every_class_has_a_colour_of_its_own(table):
    if table is None:
        names = tuple(f"class {k}" for k in range(60))
        colours = landcover_colours(names, dict.fromkeys(names, "other"))
    else:
        names = class_names(read_class_table(table))
        colours = landcover_colours(names, class_groups(read_class_table(table)))
    assert len(set(colours.values())) == len(names)
    # two groups that the report does not know are not painted alike
    assert len(set(landcover_colours("ab", {"a": "built", "b": "bare"}).values())) == 2
