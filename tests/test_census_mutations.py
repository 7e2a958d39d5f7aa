"""A census changed by seed: read right, told about, or refused in one line; never anything else.

What a changed CSV says is read by the standard library; a changed Parquet file has checksums of its pages, so
it says what it said before or is refused.
"""

from __future__ import annotations

import csv
import io
import random
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sesgrid.errors import MAX_MESSAGE, SesgridError, SesgridWarning
from sesgrid.grid import format_cell_id
from sesgrid.sources import read_census

N = 40
COLUMNS = ["idcar_200m", "i_est_200", "lcog_geo", "ind", "men", "ind_snv", "Libellé"]


def census() -> pd.DataFrame:
    """Rows whose every number is told in full by its text."""
    k = np.arange(N)
    people = 10.5 + 7 * k
    return pd.DataFrame(
        {
            "idcar_200m": [
                format_cell_id(2881200 + 200 * (i // 8), 3759200 + 200 * (i % 8)) for i in k
            ],
            "i_est_200": k % 2,
            "lcog_geo": [("01004", "75056", "2A004", "930109306493077")[i % 4] for i in k],
            "ind": people,
            "men": np.floor(people / 2),
            "ind_snv": people * (15_000.5 + 300 * k),
            "Libellé": ["forêt, près", "bois"] * (N // 2),
        }
    )


def outcome(path: Path) -> pd.DataFrame | None:
    """The census; None where it was refused, or something was told, in one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        refused = ""
        try:
            found = read_census(path)
        except SesgridError as error:
            refused = str(error)
    assert refused.isprintable()
    assert len(refused) <= MAX_MESSAGE
    if refused:
        return None
    assert {w.category for w in caught} <= {SesgridWarning}
    return None if caught else found


def require_same(found: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Compare, by the ids, with rows of numbers and texts."""
    ids = rows["idcar_200m"].str.strip().str.replace(r"(?<=[NE])0+", "", regex=True)
    rows = rows.set_index(ids).loc[found.index]
    assert len(found) == len(rows)
    numbers = {c: rows[c].to_numpy(np.float64) for c in ("ind", "men", "ind_snv", "i_est_200")}
    assert found["individuals"].tolist() == numbers["ind"].tolist()
    assert found["households"].tolist() == numbers["men"].tolist()
    assert found["imputed"].tolist() == numbers["i_est_200"].astype(bool).tolist()
    assert found["income"].tolist() == (numbers["ind_snv"] / numbers["ind"]).tolist()
    first = rows["lcog_geo"].str.replace(r"^(97\d|..).*", r"\1", regex=True)
    assert found["departement"].tolist() == first.tolist()


def written(rng: random.Random, frame: pd.DataFrame) -> bytes:
    """The rows as some program writes them: all of it valid."""
    separator = rng.choice(";,\t|")
    order = rng.sample(COLUMNS, len(COLUMNS))
    number = rng.choice([str, lambda v: str(v).replace(".", ",")])
    rows = [
        [number(v) if isinstance(v, float) else str(v) for v in row]
        for row in frame[order].to_numpy()
    ]
    out = io.StringIO()
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    end = rng.choice(["\n", "\r\n", "\r"])
    names = [rng.choice([str, str.upper, str.title, " {} ".format])(c) for c in order]
    csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=end).writerows(
        [names, *rows]
    )
    text = out.getvalue()
    if rng.random() < 0.3:
        text = text.replace(end, end * 2)
    if rng.random() < 0.3:
        text = text.replace(end, 3 * separator + end)
    return text.encode(
        rng.choice(["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-32"])
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_csv_that_says_the_same_is_read_the_same(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    frame = census().sample(frac=1, random_state=seed)
    (tmp_path / "c.csv").write_bytes(written(rng, frame))
    found = outcome(tmp_path / "c.csv")
    assert found is not None
    assert found.index.tolist() == frame["idcar_200m"].tolist()
    require_same(found, frame)


def _damaged(rng: random.Random, content: bytes) -> bytes:
    kind = rng.randrange(5)
    at, to = sorted(rng.sample(range(len(content)), 2))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[min(to, at + 40) :]
    if kind == 2:
        return content[:at] + content[at : at + 60] + content[at:]
    if kind == 3:
        return content[:at] + bytes([rng.choice(b'\0";,\n\r\t \xff\xe9.-0')]) + content[at:]
    changed = bytearray(content)
    for _ in range(rng.choice([1, 3, 20])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_csv_is_read_as_it_says_or_refused(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    content = _damaged(rng, census().to_csv(index=False).encode())
    (tmp_path / "c.csv").write_bytes(content)
    found = outcome(tmp_path / "c.csv")
    if found is not None:
        text = content.decode("utf-8-sig", errors="replace")
        rows = pd.DataFrame(list(csv.DictReader(io.StringIO(text, newline=""))))
        rows.columns = rows.columns.str.strip().str.lower()
        assert len(found) == len(rows)
        require_same(found, rows)


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_parquet_is_read_as_it_was_or_refused(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "c.parquet"
    compression = rng.choice(["none", "snappy", "zstd"])
    table = pa.Table.from_pandas(census().sample(frac=1, random_state=seed), preserve_index=False)
    order = rng.sample(COLUMNS, len(COLUMNS))
    pq.write_table(table.select(order), path, compression=compression, write_page_checksum=True)
    if seed % 4:
        path.write_bytes(_damaged(rng, path.read_bytes()))
    found = outcome(path)
    assert found is not None or seed % 4
    if found is not None:
        assert len(found) == N
        require_same(found, census())
