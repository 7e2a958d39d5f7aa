"""Every class of exception that others raised in the fuzzing, and what is told of each."""

from __future__ import annotations

import errno
from importlib import import_module

import pytest

from sesgrid.errors import (
    MAX_MESSAGE,
    FormatError,
    MissingInputError,
    ReadError,
    SesgridError,
    StoreError,
)
from sesgrid.foreign import reading, writing
from tests.test_fuzz import campaign

RAISED = {
    "_csv": "Error",
    "_lzma": "LZMAError",
    "binascii": "Error",
    "builtins": "AttributeError EOFError IndexError KeyError MemoryError NotImplementedError "
    "OSError OverflowError RecursionError RuntimeError StopIteration "
    "TypeError UnicodeDecodeError UnicodeEncodeError ValueError",
    "json.decoder": "JSONDecodeError",
    "numcodecs.errors": "UnknownCodecError",
    "pandas.errors": "EmptyDataError ParserError",
    "py7zr.exceptions": "Bad7zFile PasswordRequired UnsupportedCompressionMethodError",
    "pyarrow.lib": "ArrowInvalid ArrowKeyError ArrowNotImplementedError",
    "pyogrio._err": "CPLE_AppDefinedError CPLE_NotSupportedError CPLE_OpenFailedError",
    "pyogrio.errors": "DataLayerError DataSourceError FeatureError FieldError",
    "pyproj.exceptions": "CRSError",
    "rasterio._err": "CPLE_AppDefinedError CPLE_OpenFailedError",
    "rasterio.errors": "CRSError RasterioIOError",
    "shapely.errors": "GEOSException",
    "sqlite3": "DatabaseError OperationalError",
    "struct": "error",
    "tomllib": "TOMLDecodeError",
    "zarr.errors": "MetadataValidationError NodeTypeValidationError",
    "zipfile": "BadZipFile",
    "zlib": "error",
}
"""Of what readers, cube and Keras (which raises built-in ones) call; those of the system are below."""
NAMES = [f"{module}.{name}" for module, names in RAISED.items() for name in names.split()]

SYSTEM = {
    errno.ENOENT: MissingInputError,
    errno.ENOTDIR: MissingInputError,
    errno.EACCES: ReadError,
    errno.EPERM: ReadError,
    errno.EIO: ReadError,
    errno.EISDIR: ReadError,
    errno.ENAMETOOLONG: ReadError,
    errno.ELOOP: ReadError,
    errno.EMFILE: ReadError,
    errno.ESTALE: ReadError,
}


def made(name: str) -> Exception:
    """An instance; those of GDAL and Unicode want more than a message."""
    module, _, last = name.rpartition(".")
    cls = getattr(import_module(module), last)
    if issubclass(cls, UnicodeDecodeError):
        return cls("utf-8", b"\xff", 0, 1, "invalid start byte")
    if issubclass(cls, UnicodeEncodeError):
        return cls("ascii", "\xff", 0, 1, "ordinal not in range")
    if module == "json.decoder":
        return cls("a\nb", "{", 0)
    for arguments in (("a\nb",), (1, 1, "a\nb"), ()):
        try:
            return cls(*arguments)
        except TypeError:
            continue
    raise AssertionError(f"{name} cannot be made")


@pytest.mark.parametrize("name", NAMES)
def test_what_others_raise_is_told_in_one_line(name):
    with pytest.raises(FormatError) as caught, reading("city.gpkg"):
        raise made(name)
    told = str(caught.value)
    assert told.startswith("city.gpkg cannot be read")
    assert name.rpartition(".")[2] in told or isinstance(caught.value.__cause__, OSError)
    assert "\n" not in told
    assert len(told) <= MAX_MESSAGE


@pytest.mark.parametrize("number", SYSTEM, ids=errno.errorcode.__getitem__)
def test_what_the_system_refuses_is_told_by_its_own_class(number):
    import os

    with pytest.raises(SYSTEM[number]) as caught, reading("city.gpkg"):
        raise OSError(number, os.strerror(number), "city.gpkg")
    assert "city.gpkg" in str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_what_cannot_be_written_is_told(number):
    import os

    with pytest.raises(StoreError, match=r"out\.csv cannot be written"), writing("out.csv"):
        raise OSError(number, os.strerror(number), "out.csv")


@pytest.fixture
def small_files(monkeypatch):
    """No file may grow beyond a kilobyte, as on a disk that is full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def larger_sources(tmp_path):
    """Sources of which a copy is made to read them: in wide characters, in a log, in an archive."""
    import sqlite3
    import zipfile
    from contextlib import closing

    text = "idcar_200m;ind\n" + "CRS3035RES200mN2881200E3759200;1\n" * 90
    (tmp_path / "wide.csv").write_text(text, encoding="utf-16")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("a.csv", text)
    with closing(sqlite3.connect(tmp_path / "log.gpkg")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (a)")
    return tmp_path


@pytest.mark.parametrize("name", ["wide.csv", "log.gpkg", "packed.zip"])
def test_want_of_room_for_a_copy_is_not_the_sources_fault(larger_sources, small_files, name):
    from sesgrid.sources import read_filosofi

    with pytest.raises(StoreError, match=rf"{name} cannot be (copied|unpacked) to .*TMPDIR"):
        read_filosofi(larger_sources / name)


@pytest.mark.parametrize("name", ["wide.csv", "log.gpkg", "packed.zip"])
def test_with_room_the_same_sources_are_read_up_to_their_own_faults(larger_sources, name):
    from sesgrid.sources import read_filosofi

    with pytest.raises(FormatError):
        read_filosofi(larger_sources / name)


def test_a_name_that_is_no_text_is_told_as_such():
    with pytest.raises(FormatError, match=r"not in UTF-8, .*: rename it"), reading("a.tif"):
        "caf\udce9.tif".encode()


def test_errors_of_ours_pass_as_they_are():
    with pytest.raises(SesgridError, match=r"^mine$"), reading("x"):
        raise ReadError("mine")


def test_interrupts_are_no_faults_of_files():
    with pytest.raises(KeyboardInterrupt), reading("x"):
        raise KeyboardInterrupt


@pytest.mark.slow
def test_the_fuzzing_raises_nothing_that_is_not_listed():
    result = campaign("--sources", "--inputs", "150", "--seed", "1")
    # those of the system are told by their numbers, and mistakes in a TOML by `sesgrid.run.config_errors`
    system = {
        "builtins.FileNotFoundError",
        "builtins.PermissionError",
        "builtins.IsADirectoryError",
    }
    settings = {name for name in result["causes"] if name.startswith("pydantic")}
    assert set(result["causes"]) - system - settings <= set(NAMES)


def test_a_machine_without_room_for_any_temporary_file_is_told_of(larger_sources, monkeypatch):
    import resource
    import tempfile

    from sesgrid.sources import read_filosofi

    monkeypatch.setattr(tempfile, "tempdir", None)  # looked for anew, by writing four bytes
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(StoreError, match=r"a temporary folder cannot be written .No usable"):
            read_filosofi(larger_sources / "packed.zip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
