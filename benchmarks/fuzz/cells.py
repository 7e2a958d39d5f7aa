"""A census by its own writer: the table is drawn first, each file is written from it and compared with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import Transformer

__all__ = [
    "VINTAGE_NAMES",
    "census_difference",
    "draw_cells",
    "insee_frame",
    "squares",
    "write_shapefile",
]

VINTAGE_NAMES = {
    "2015": ("IdINSPIRE", "Ind", "Men", "Ind_snv", "I_est_cr", "Depcom"),
    "2017": ("Idcar_200m", "Ind", "Men", "Ind_snv", "I_est_200", "lcog_geo"),
    "2019": ("idcar_200m", "ind", "men", "ind_snv", "i_est_200", "lcog_geo"),
}
"""INSEE's names of: id, people, households, sum of living standards, imputed, communes."""

_COMMUNES = ("75056", "01004", "2A004", "2B033", "33063", "930109306493077", "06088", "59350")


def draw_cells(rng: Random, n: int | None = None) -> pd.DataFrame:
    """The truth: cells in no order, with what INSEE tells of them."""
    n = n or rng.randint(4, 60)
    north, east = rng.randrange(2_300_000, 2_900_000, 200), rng.randrange(3_500_000, 3_900_000, 200)
    side = int(n**0.5) + 2
    at = rng.sample(range(side * side), n)
    corners = [(north + 200 * (k // side), east + 200 * (k % side)) for k in at]
    people = [rng.randint(1, 900) / 2 for _ in range(n)]
    return pd.DataFrame(
        {
            "cell_id": [f"CRS3035RES200mN{a}E{b}" for a, b in corners],
            "northing": [a for a, _ in corners],
            "easting": [b for _, b in corners],
            "individuals": people,
            "households": [float(rng.randint(1, 300)) for _ in range(n)],
            "total": [round(p * rng.uniform(9_000, 48_000), 1) for p in people],
            "imputed": [rng.randrange(2) for _ in range(n)],
            "commune": [rng.choice(_COMMUNES) for _ in range(n)],
        }
    )  # fmt: skip


def insee_frame(rng: Random, cells: pd.DataFrame, vintage: str | None = None) -> pd.DataFrame:
    """The cells as a release has them: its names, further columns, in some order."""
    names = VINTAGE_NAMES[vintage or rng.choice(list(VINTAGE_NAMES))]
    ours = ("cell_id", "individuals", "households", "total", "imputed", "commune")
    frame = cells[list(ours)].set_axis(names, axis=1)
    if rng.random() < 0.3:
        frame.columns = frame.columns.str.upper()
    frame["idcar_1km"] = [f"CRS3035RES1000mN{a // 1000 * 1000}E{b // 1000 * 1000}"
                          for a, b in zip(cells["northing"], cells["easting"], strict=True)]  # fmt: skip
    for name in rng.sample(
        ["men_pauv", "log_soc", "ind_80p", "groupe_nom", "men_surf"], rng.randint(0, 4)
    ):
        frame[name] = [float(rng.randint(0, 50)) for _ in range(len(cells))]
    columns = list(frame)
    if rng.random() < 0.5:
        rng.shuffle(columns)
    return frame[columns]


def squares(cells: pd.DataFrame, crs: int = 3035) -> np.ndarray:
    """The cells' squares; in another CRS the four corners are transformed, as INSEE does."""
    x, y = cells["easting"].to_numpy(float), cells["northing"].to_numpy(float)
    boxes = shapely.box(x, y, x + 200, y + 200)
    if crs == 3035:
        return boxes
    to = Transformer.from_crs(3035, crs, always_xy=True)
    return shapely.transform(boxes, lambda xy: np.column_stack(to.transform(xy[:, 0], xy[:, 1])))


def census_difference(cells: pd.DataFrame) -> Callable[[object, bool], str]:
    """Compares what a reader returned with the cells; rows may be missing where ``partly``."""
    commune = cells["commune"]
    wanted = pd.DataFrame(
        {
            "individuals": cells["individuals"].to_numpy(),
            "households": cells["households"].to_numpy(),
            "income": (cells["total"] / cells["individuals"]).to_numpy(),
            "imputed": cells["imputed"].to_numpy(float),
        },
        index=cells["cell_id"],
    )
    departement = pd.Series(commune.str[:2].to_numpy(), index=cells["cell_id"])

    def difference(result: object, partly: bool) -> str:
        if not isinstance(result, pd.DataFrame):
            return f"received {type(result).__name__}"
        ids = list(result.index)
        strangers = set(ids) - set(wanted.index)
        if strangers or len(set(ids)) != len(ids):
            return f"cells that are not in the file, or twice: {sorted(strangers)[:1]}"
        if len(ids) < len(wanted) and not partly:
            return f"{len(ids)} of {len(wanted)} cells"
        if ids != [i for i in wanted.index if i in set(ids)]:
            return "another order"
        for name in wanted:
            got = result[name].astype("Float64").to_numpy(float, na_value=np.nan)
            off = ~np.isclose(
                got, wanted[name].loc[ids].to_numpy(), rtol=1e-9, atol=0, equal_nan=True
            )
            if partly:
                off &= ~np.isnan(got)
            if off.any():
                k = int(off.argmax())
                return f"{name} of {ids[k]}: {got[k]} instead of {wanted[name][ids[k]]}"
        if "departement" in result:
            got_d = result["departement"]
            off = (got_d.to_numpy() != departement.loc[ids].to_numpy()) & got_d.notna().to_numpy()
            if off.any():
                return f"département {got_d[off].iloc[0]} instead of {departement.loc[ids][off].iloc[0]}"
            if got_d.isna().any() and not partly:
                return "départements are missing"
        return ""

    return difference


def write_shapefile(frame: gpd.GeoDataFrame, path: Path, encoding: str = "utf-8") -> None:
    """With names cut to ten characters, as the format has them."""
    short = frame.rename(columns={n: n[:10] for n in frame.columns if n != frame.geometry.name})
    short.to_file(path, engine="pyogrio", driver="ESRI Shapefile", encoding=encoding)
