from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid.errors import FormatError, MissingInputError
from sesgrid.run import activation as lazily
from sesgrid.run.results import _surest
from sesgrid.run.tables import CellTable, TableWriter
from sesgrid.run.workspace import Workspace
from sesgrid.stages.activation import MAPS, activation_dataset
from sesgrid.stages.analyse import activation_table
from tests.fake_city import CLASSES, fake_activation, fake_cells

quick = settings(max_examples=30, deadline=None)


def write(path, table, sizes):
    """A table in batches of such sizes."""
    with TableWriter(path, table.attrs) as writer:
        for end, size in zip(np.cumsum(sizes), sizes, strict=True):
            writer.write(table.iloc[end - size : end])
    return CellTable(path)


def some_table(n):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "name": [f"n{k}" for k in range(n)],
            "count": np.arange(n),
            "share": rng.random(n),
            "known": pd.array([k if k % 3 else pd.NA for k in range(n)], dtype="Int64"),
            "told": rng.random(n) < 0.5,
        },
        index=pd.Index([f"id{k}" for k in range(n)], name="cell_id"),
    )
    table.attrs = {"city": "Ville", "n": 3}
    return table


@quick
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    at=st.tuples(st.integers(0, 41), st.integers(0, 41)),
    chosen=st.lists(st.integers(0, 41), min_size=1, max_size=4),
)
def test_rows_are_pandas_for_any_batches(tmp_path_factory, sizes, at, chosen):
    table = some_table(sum(sizes))
    found = write(tmp_path_factory.mktemp("t") / "t.parquet", table, sizes)
    assert (len(found), found.sizes, found.columns) == (len(table), sizes, list(table))
    whole = found.read()
    pd.testing.assert_frame_equal(whole, table)
    assert whole.attrs == table.attrs
    pd.testing.assert_frame_equal(
        found.read(["share", "known"], with_id=False),
        table[["share", "known"]].reset_index(drop=True),
    )
    batches = list(found.batches(["share"]))
    assert [len(b) for b in batches] == sizes
    pd.testing.assert_frame_equal(pd.concat(batches), table[["share"]])
    start, stop = sorted(k % len(table) for k in at)
    names = ["share", "count"]  # another order than the file's
    rows = found.rows(start, stop + 1, names)
    np.testing.assert_array_equal(rows, table[names].to_numpy()[start : stop + 1])
    assert rows.dtype == found.dtype(names) == np.float64
    assert found.rows(0, 1, ["count"]).dtype == found.dtype(["count"]) == np.int64
    positions = [k % len(table) for k in chosen]
    pd.testing.assert_frame_equal(found.take(positions), table.iloc[positions])


def test_a_column_that_is_not_there_is_refused(tmp_path):
    found = write(tmp_path / "t.parquet", some_table(5), [2, 3])
    for ask in (
        lambda: found.read(["share", "nope"]),
        lambda: found.rows(0, 2, ["nope"]),
        lambda: found.dtype(["nope"]),
        lambda: list(found.batches(["nope"])),
    ):
        with pytest.raises(
            MissingInputError, match=r"t\.parquet has no column nope, but name, count"
        ):
            ask()
    some_table(5).reset_index(drop=True).to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(MissingInputError, match="no column cell_id"):
        CellTable(tmp_path / "bare.parquet").read()


def test_a_table_may_be_asked_for_no_rows_or_columns_and_travel(tmp_path):
    found = write(tmp_path / "t.parquet", some_table(5), [5])
    assert found.read([], with_id=False).shape == (5, 0)
    assert found.take([]).shape == (0, 5)
    pd.testing.assert_frame_equal(copy.deepcopy(found).read(), found.read())


def test_the_gallery_shows_the_cells_that_the_models_are_surest_of():
    nan = np.nan
    assert _surest(np.array([0.5, nan, 0.1, 0.9, 0.2, 0.8, 0.3, nan, 0.7, 0.05])) == [
        9,
        2,
        4,
        8,
        5,
        3,
    ]
    assert _surest(np.array([nan, 0.4, nan, 0.3, 0.5])) == [3, 4]
    assert _surest(np.array([nan, 0.4])) == _surest(np.array([])) == []


# Class sums -------------------------------------------------------------------------------------


@pytest.fixture
def explained(tmp_path, monkeypatch):
    """A run's table of the stage `explain`, and the same class sums in memory."""
    cells = fake_cells(12)
    sums = fake_activation(cells)
    columns = {
        f"{m}_{c}": sums["activation"].values[:, k, c]
        for k, m in enumerate(MAPS)
        for c in range(len(CLASSES))
    }
    columns |= {f"area_{c}": sums["area"].values[:, c] for c in range(len(CLASSES))}
    rows = pd.DataFrame(columns, index=cells.index)
    monkeypatch.setattr(lazily, "class_table", lambda _: None)
    monkeypatch.setattr(lazily, "class_names", lambda _: CLASSES[1:])
    monkeypatch.setattr(lazily, "method_of", lambda _: SimpleNamespace(name="paper"))
    config = SimpleNamespace(
        sources=SimpleNamespace(landcover="there"), explain=SimpleNamespace(precision="float32")
    )
    return SimpleNamespace(cells=cells, rows=rows, files=Workspace(tmp_path), config=config)


def test_class_sums_are_read_as_they_are_looked_at(explained, monkeypatch):
    path = explained.files.table("explain")
    n = len(explained.rows)
    write(path, explained.rows, [7, 50, n - 57])
    lazy = lazily.load_activation(explained.config, explained.files, explained.cells.index)
    eager = activation_dataset(explained.rows.reset_index(), CLASSES[1:], lazy.attrs)
    read = []
    real = CellTable.rows

    def told(table, start, stop, names):
        read.append((start, stop, len(names)))
        return real(table, start, stop, names)

    monkeypatch.setattr(CellTable, "rows", told)
    part = lazy["activation"].sel(map="high").isel(cell=slice(5, 60))
    assert read == []
    xr.testing.assert_identical(
        part.compute(), eager["activation"].sel(map="high").isel(cell=slice(5, 60))
    )
    assert read == [(5, 60, len(CLASSES))]
    for key in (
        {"cell": 3, "landcover_class": 2},
        {"cell": slice(60, 4, -3)},
        {"cell": slice(4, 4)},
    ):
        xr.testing.assert_identical(lazy.isel(key).compute(), eager.isel(key))
    xr.testing.assert_identical(lazy.compute(), eager)
    pd.testing.assert_frame_equal(
        activation_table(explained.cells, lazy, n_bootstrap=10),
        activation_table(explained.cells, eager, n_bootstrap=10),
    )


def test_a_missing_area_is_refused(explained):
    path = explained.files.table("explain")
    rows = explained.rows.astype({"area_2": "Int64"})
    rows.iloc[60, rows.columns.get_loc("area_2")] = pd.NA
    write(path, rows, [50, len(rows) - 50])
    lazy = lazily.load_activation(explained.config, explained.files, explained.cells.index)
    assert lazy["area"].isel(cell=slice(0, 50)).values.dtype == np.int64
    missing = f"in every row of area_2, 1 of {len(rows)} are missing"
    with pytest.raises(FormatError, match=missing):
        activation_table(explained.cells, lazy, n_bootstrap=10)
    with pytest.raises(FormatError, match=r"area_2: .* 1 missing"):
        activation_dataset(rows.reset_index(), CLASSES[1:], {})
    write(path, explained.rows.astype({"area_2": float}), [len(rows)])
    with pytest.raises(FormatError, match="whole pixels"):
        lazily.load_activation(explained.config, explained.files, explained.cells.index)


def test_types_of_columns_do_not_matter(explained):
    rows = explained.rows.astype({"area_1": np.int32, "area_3": "Int64", "low_2": np.float32})
    write(explained.files.table("explain"), rows, [len(rows)])
    lazy = lazily.load_activation(explained.config, explained.files, explained.cells.index)
    eager = activation_dataset(rows.reset_index(), CLASSES[1:], lazy.attrs)
    assert {v.dtype for v in eager.values()} == {np.dtype(np.float64), np.dtype(np.int64)}
    xr.testing.assert_identical(lazy.compute(), eager)
    part = lazy["area"].isel(landcover_class=1).compute()
    assert part.dtype == np.int64
    xr.testing.assert_identical(part, eager["area"].isel(landcover_class=1))


def test_ids_are_the_tables_own_where_all_cells_are_explained(explained):
    path, cells = explained.files.table("explain"), explained.cells.index
    if cells.dtype == object:
        pytest.skip("pandas 2 has an object for every text, and no memory to share")

    def where(index):
        found = pa.array(index.array)
        return (
            (found.chunk(0) if isinstance(found, pa.ChunkedArray) else found).buffers()[-1].address
        )

    write(path, explained.rows, [len(cells)])
    lazy = lazily.load_activation(explained.config, explained.files, cells)
    assert where(lazy["cell"].to_index()) == where(cells)
    write(path, explained.rows.iloc[3:], [len(cells) - 3])
    fewer = lazily.load_activation(explained.config, explained.files, cells)
    assert fewer["cell"].values.tolist() == cells[3:].tolist()


def test_no_land_cover_has_no_class_sums(explained):
    explained.config.sources.landcover = None
    assert lazily.load_activation(explained.config, explained.files, explained.cells.index) is None
