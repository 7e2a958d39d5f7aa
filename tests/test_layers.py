"""The layers stay apart: imports go one way only, also inside functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sesgrid

ROOT = Path(sesgrid.__file__).parent
ALLOWED = {
    # who: which parts of sesgrid it may import
    "kernels": {"errors", "grid", "kernels"},
    "sources": {"errors", "foreign", "grid", "sources"},
    "store": {"errors", "foreign", "grid", "store", "kernels"},
    "stages": {"errors", "foreign", "grid", "kernels", "store", "stages"},
    "report": {"errors", "foreign", "grid", "store", "stages", "report", ""},
    "synth": {"errors", "foreign", "grid", "synth", "sources"},
    "batches": {"errors", "foreign", "grid", "store", "stages", "batches"},
}
_BELOW = {*ALLOWED, "errors", "foreign", "grid"}
ALLOWED["run"] = _BELOW | {"run", ""}
ALLOWED["studies"] = ALLOWED["run"] | {"studies"}
FORBIDDEN_OUTSIDE = {
    # kernels take arrays and give arrays
    "kernels": {"dask", "distributed", "xarray", "rioxarray", "pandas", "geopandas", "zarr"},
    "sources": {"dask", "distributed", "keras", "tensorflow", "zarr"},
    "stages": {"rasterio", "zarr", "tensorflow", "distributed"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_imports_go_one_way(layer):
    files = list((ROOT / layer).glob("*.py"))
    assert files
    for path in files:
        names = imports(path)
        own = {[*n.split("."), ""][1] for n in names if n.split(".")[0] == "sesgrid"}
        assert own <= ALLOWED[layer], f"{path.name} imports {own - ALLOWED[layer]}"
        outside = {n.split(".")[0] for n in names}
        assert not outside & FORBIDDEN_OUTSIDE.get(layer, set()), path.name


def test_reading_a_census_does_not_load_the_networks():
    import subprocess
    import sys

    code = (
        "import sys, sesgrid; sesgrid.read_filosofi; sesgrid.cells; sesgrid.mosaic; sesgrid.predict;"
        "assert not {'keras', 'tensorflow'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
