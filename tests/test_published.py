"""What a run tells of itself in what is passed on."""

from __future__ import annotations

from sesgrid.run.published import placeless
from tests.small_run import configure


def test_places_are_left_out_where_nobody_knows_the_users_home(tmp_path, monkeypatch):
    config = configure(tmp_path, "Ville")
    message = f"{tmp_path}/ortho/a.tif is damaged; see ~/notes and {tmp_path}/result/work"
    told = "ortho/a.tif is damaged; see ~/notes and result/work"
    assert placeless(message, config) == told
    # as in a container with a user of its own
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert placeless(message, config) == told
