"""The report of any land cover: one class or two hundred, groups that it does not know, or none."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from sesgrid.report import write_report
from sesgrid.report.charts import activation_chart
from sesgrid.report.gallery import gallery
from sesgrid.sources import class_groups, class_names, read_class_table
from sesgrid.stages.analyse import analyse
from tests.fake_city import fake_activation, fake_cells, fake_thumbnails

TABLES = {
    "cosia": None,
    "ocsge": None,
    "one class": "code,landcover_class\n1,only\n",
    "no groups": "code,landcover_class\n"
    + "\n".join(f"{k},class {k}" for k in range(1, 61))
    + "\n",
    "foreign groups": "code,landcover_class,group\n1,a,<b>bâti</b>\n2,b,\n3,c,nature\n4,d,vert & bleu\n",
}


@pytest.fixture(scope="module")
def cells():
    return fake_cells(16)


@pytest.mark.parametrize("kind", TABLES)
def test_a_page_is_written_whatever_the_classes(cells, tmp_path, kind):
    text = TABLES[kind]
    (tmp_path / "t.csv").write_text(text or "")
    table = read_class_table(kind if text is None else tmp_path / "t.csv")
    names, groups = class_names(table), class_groups(table)
    findings = analyse(
        cells, fake_activation(cells, ("unclassified", *names)), groups=groups, n_bootstrap=20
    )
    assert findings.landcover_classes == ("unclassified", *names)
    # whose neighbours are looked at are homes: without such a group there are no pairs
    assert findings.pairs.empty == ("residential" not in groups.values())
    thumbnails = [
        replace(
            t,
            classes=np.random.default_rng(k).integers(0, len(names) + 1, t.classes.shape, np.uint8),
        )
        for k, t in enumerate(fake_thumbnails(cells, 2, 60))
    ]
    page = write_report(tmp_path / "r.html", cells, findings, title="x", thumbnails=thumbnails)
    shown = page.read_text()
    assert "<b>bâti" not in shown
    drawn = "".join(ElementTree.fromstring(activation_chart(findings.activation, 0.4)).itertext())
    seen = findings.activation["landcover_class"].unique()
    assert len(seen) == len(names)
    assert all(name in drawn for name in names)
    legend = gallery(thumbnails, findings.landcover_classes, groups, 5)["legend"]
    assert len({colour for _, colour in legend}) == len(legend) == len(names)
