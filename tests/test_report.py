from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sesgrid.errors import MissingInputError
from sesgrid.report import CellThumbnail, write_report
from sesgrid.report.charts import activation_chart, pair_heatmap
from sesgrid.report.content import (
    activation_sentences,
    automatic_notes,
    number,
    provenance_sections,
)
from sesgrid.report.gallery import gallery
from sesgrid.report.images import activation_overlay, block_mean, class_image, ses_image
from sesgrid.report.maps import confusion_chart, scale_bar_m, ses_map
from sesgrid.report.palette import INK, landcover_colours, ses_colours, text_on
from sesgrid.report.reliability import reliability_chart
from sesgrid.report.scores import folds_sentence, folds_table, score_table
from sesgrid.report.svg import nice_ticks, tag
from sesgrid.stages.analyse import analyse
from tests.fake_city import (
    CLASSES,
    GROUPS,
    fake_activation,
    fake_cells,
    fake_spatial_folds,
    fake_thumbnails,
)

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>alert("x")</script>&amp;'
PROVENANCE = {
    "city": "Fakeville",
    "date": "2026-11-21",
    "seed": 0,
    "model": {"head": "binomial", "gates": ["swish", "ungated"]},
    "sources": [{"name": "Filosofi", "vintage": 2019}],
}


class Page(HTMLParser):
    """Collects what a browser would see: tags with attributes, text, and whether tags nest."""

    VOID = ("meta", "img", "br", "link", "hr")

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open, self.broken = "", [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data):
        self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def cells():
    return fake_cells(20)


@pytest.fixture(scope="module")
def findings(cells):
    return analyse(cells, fake_activation(cells), groups=GROUPS, n_bootstrap=50)


@pytest.fixture(scope="module")
def html(cells, findings, tmp_path_factory):
    path = write_report(
        tmp_path_factory.mktemp("report") / "new" / "report.html",
        cells,
        findings,
        title="Income in Fakeville",
        thumbnails=fake_thumbnails(cells),
        provenance=PROVENANCE,
        notes=["a tile failed"],
    )
    return path.read_text(encoding="utf-8")


def decoded(uri):
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    return image.convert("RGBA" if image.mode == "P" else "RGB")


# The page -------------------------------------------------------------------------------------


def test_page_is_whole_and_says_what_it_should(html, findings):
    page = Page(html)
    assert (page.broken, page.open) == ([], [])
    for said in (
        "Income in Fakeville",
        "2026-11-21",
        "a tile failed",
        number(findings.metrics["pearson_r"]),
        "Observed and predicted",
        "How to read this",
        "allocation of resources",
        "complementary by construction",
        "Filosofi",
        "very-low-density urban fabric",
    ):
        assert said in page.text, said
    assert len(html) < 5e6


def test_page_opens_offline(html):
    page = Page(html)
    for _, attributes in page.tags:
        for key in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(key, "data:").startswith("data:")
    assert not page.all("script")
    assert not page.all("link")
    assert not re.search(r"url\(|@import|\son\w+=", html)
    assert "default-src 'none'" in html


def test_figures_have_alternatives_and_are_valid_drawings(html):
    page = Page(html)
    assert all(image["alt"] for image in page.all("img"))
    drawings = re.findall(r"<svg xmlns.*?</svg>", html, flags=re.S)
    assert len(drawings) == 7
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        assert root.get("aria-label")


def test_hostile_names_stay_text(cells, tmp_path):
    names = ("unclassified", EVIL, f"$\\frac{EVIL}$", "roads")
    groups = {EVIL: "residential", names[2]: EVIL, "roads": "infrastructure"}
    hostile = cells.copy()
    hostile.attrs["city"] = EVIL
    thumbnails = [
        dataclasses.replace(t, cell_id=EVIL, classes=np.ones((200, 200), np.uint8))
        for t in fake_thumbnails(cells, 1)
    ]
    path = write_report(
        tmp_path / "report.html",
        hostile,
        analyse(hostile, fake_activation(hostile, names), groups=groups, n_bootstrap=20),
        title=EVIL,
        thumbnails=thumbnails,
        provenance={EVIL: EVIL, "sources": [{EVIL: EVIL}]},
        notes=[EVIL],
    )
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert "<script" not in html.lower()
    assert not page.all("script")
    assert (page.broken, page.open) == ([], [])
    assert page.text.count(EVIL) > 10


@pytest.mark.parametrize("missing", ["everything", "land cover", "overlap", "predictions", "truth"])
def test_page_is_written_with_little_to_say(cells, tmp_path, missing):
    few = cells.iloc[:4].copy() if missing == "everything" else cells.copy()
    if missing in ("everything", "predictions"):
        few["ses_predicted"] = pd.array([pd.NA] * len(few), dtype="Int64")
        few["p"] = np.nan
        few["coverage"] = np.nan
    if missing == "truth":
        few["ses_true"] = pd.array([pd.NA] * len(few), dtype="Int64")
    activation = None if missing in ("everything", "land cover") else fake_activation(few)
    if missing == "overlap":  # there is land cover, elsewhere
        activation = activation.where(activation["landcover_class"] == "unclassified", 0)
        activation["area"] = activation["area"].astype(np.int64)
    thumbnails = [dataclasses.replace(t, classes=None) for t in fake_thumbnails(few, 1)]
    path = write_report(
        tmp_path / "report.html",
        few,
        analyse(few, activation, groups=GROUPS, n_bootstrap=5),
        title="Little",
        thumbnails=thumbnails if missing == "land cover" else None,
    )
    page = Page(path.read_text(encoding="utf-8"))
    assert (page.broken, page.open) == ([], [])
    assert not re.search(r"\bnan\b|\bNone\b|<NA>", page.text.split("}", 1)[1])
    assert ("No land cover was given" in page.text) == (activation is None)
    assert ("meets none of the explained cells" in page.text) == (missing == "overlap")
    assert ("nothing to score" in page.text) == (missing not in ("land cover", "overlap"))
    assert bool(page.all("img")) == (missing == "land cover")


def test_page_of_no_cells_is_written(cells, tmp_path):
    none = cells.iloc[:0]
    path = write_report(
        tmp_path / "report.html", none, analyse(none, None, groups={}), title="Nobody"
    )
    assert "no cells to draw" in path.read_text(encoding="utf-8")


def test_findings_read_back_from_csv_make_the_same_figures(cells, findings, tmp_path):
    table = pd.read_csv(io.StringIO(findings.activation.to_csv(index=False)))
    assert activation_chart(table, 0.4) == activation_chart(findings.activation, 0.4)


def test_notes_follow_from_the_tables(cells, findings, html):
    text = Page(html).text
    unpredicted = int(cells["ses_predicted"].isna().sum())
    partial = int((cells["coverage"] < 1).sum())
    assert f"Cells without a prediction (grey on the map): {unpredicted} of {len(cells)}" in text
    assert f"Cells only partly covered by imagery: {partial} of {len(cells)}" in text
    assert "imputed income" in text


def test_cells_without_activation_are_noted(cells, findings):
    findings.activation.attrs["cells_without_activation"]["high"] = 7
    notes = automatic_notes(cells, findings)
    findings.activation.attrs["cells_without_activation"]["high"] = 0
    assert "Cells predicted high without any activation (no ratios): 7" in notes
    assert not any("predicted low" in note for note in notes)


def test_failed_writing_leaves_the_old_page_and_nothing_else(
    cells, findings, tmp_path, monkeypatch
):
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("sesgrid.store.parts.os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, cells, findings, title="new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_columns_are_named(cells, findings, tmp_path):
    with pytest.raises(MissingInputError, match="coverage"):
        write_report(tmp_path / "r.html", cells.drop(columns="coverage"), findings, title="x")
    assert not list(tmp_path.iterdir())


# Maps -----------------------------------------------------------------------------------------


def test_map_shows_every_cell_where_it_lies_north_up():
    rows, cols = np.array([-5, -5, -3]), np.array([10, 11, 12])
    colours = ["#112233", "#445566"]
    uri, shape, step = ses_image(rows, cols, np.array([1.0, 2.0, np.nan]), colours, 100)
    image = np.array(decoded(uri))
    assert (shape, step) == ((3, 3), 1)
    assert tuple(image[0, 0]) == (0x11, 0x22, 0x33, 255)
    assert tuple(image[0, 1]) == (0x44, 0x55, 0x66, 255)
    assert tuple(image[2, 2]) == (0xC4, 0xC4, 0xBF, 255)
    assert (image[1, :, 3] == 0).all()


def test_large_map_shows_the_mean_class_of_several_cells():
    y, x = (a.ravel() for a in np.mgrid[:10, :10])
    classes = np.where((y < 2) & (x < 2), np.array([1.0, 3.0])[x % 2], np.nan)
    uri, shape, step = ses_image(y, x, classes, ["#000001", "#000002", "#000003"], 5)
    image = np.array(decoded(uri))[..., :3]
    assert (shape, step) == ((5, 5), 2)
    assert tuple(image[0, 0]) == (0, 0, 2)
    assert tuple(image[0, 1]) == (0xC4, 0xC4, 0xBF)


def test_scale_bar_measures_the_map(cells):
    root = ElementTree.fromstring(ses_map(cells, "ses_true", 5, "map"))
    image = root.find(f"{SVG}image")
    span = cells["col"].max() - cells["col"].min() + 1
    px_per_m = float(image.get("width")) / (span * 200)
    bar = float(re.search(r"h([\d.]+)", root.find(f"{SVG}path").get("d"))[1])
    text = root.find(f"{SVG}text").text
    length_m = float(text.split()[0]) * (1000 if text.endswith("km") else 1)
    assert bar / px_per_m == pytest.approx(length_m, rel=0.01)


@settings(max_examples=40, deadline=None)
@given(st.floats(400, 2e6))
def test_scale_bar_fits_the_map(span_m):
    assert 0.1 * span_m - 1 <= scale_bar_m(span_m) <= 0.25 * span_m


def test_confusion_shows_row_shares_and_counts():
    root = ElementTree.fromstring(confusion_chart([[30, 10], [0, 0]]))
    texts = [[t.text for t in g.findall(f"{SVG}text")] for g in root.findall(f"{SVG}g")]
    assert [t[1] for t in texts] == ["30", "10", "0", "0"]
    assert [t[0].rstrip("%\u202f") for t in texts] == ["75", "25", "–", "–"]


# Charts ---------------------------------------------------------------------------------------


def test_points_lie_on_their_axis_and_intervals_around_them(findings):
    table = findings.activation
    root = ElementTree.fromstring(activation_chart(table, 0.4))
    ticks = {}
    for text in root.iter(f"{SVG}text"):
        if text.get("text-anchor") == "middle" and re.fullmatch(r"[\d.]+", text.text or ""):
            ticks.setdefault(float(text.get("x")) > 620, {})[float(text.text)] = float(
                text.get("x")
            )
    fits = {panel: np.polyfit(list(t), list(t.values()), 1) for panel, t in ticks.items()}
    found = 0
    for group in root.iter(f"{SVG}g"):
        circle, title = group.find(f"{SVG}circle"), group.find(f"{SVG}title")
        if circle is None:
            continue
        name = title.text.split(", low: ")[0]
        row = table[(table["landcover_class"] == name) & (table["prediction"] == "low")].iloc[0]
        x = float(circle.get("cx"))
        right = x > 620
        columns = (
            ("probability", "probability_ci_low", "probability_ci_high")
            if right
            else ("activation_ratio", "ci_low", "ci_high")
        )
        value, low, high = (np.polyval(fits[right], row[c]) for c in columns)
        assert x == pytest.approx(value, abs=0.1)
        ends = re.fullmatch(r"M([\d.]+) [\d.]+H([\d.]+)", group.find(f"{SVG}path").get("d"))
        assert [float(e) for e in ends.groups()] == pytest.approx([low, high], abs=0.15)
        found += 1
    assert found == 2 * len(CLASSES[1:])


def test_chart_groups_classes_in_the_figures_order(findings):
    root = ElementTree.fromstring(activation_chart(findings.activation, 0.4))
    heads = [t.text for t in root.iter(f"{SVG}text") if t.get("class") == "group"]
    assert heads == ["Residential", "Functional", "Infrastructure", "Nature", "No use"]


def test_chart_of_one_side_says_that_the_other_is_missing(findings):
    low = findings.activation[findings.activation["prediction"] == "low"]
    svg = activation_chart(low, 0.4)
    assert f"{low['n_cells'].iloc[0]} / –" in svg
    assert "l5 5l-5 5" not in svg


def test_heatmap_fills_only_pairs_with_values(findings):
    filled = findings.pairs[findings.pairs["coactivation"].notna()]
    root = ElementTree.fromstring(
        pair_heatmap(findings.pairs, "coactivation", "t", findings.landcover_classes)
    )
    titles = [g.find(f"{SVG}title").text for g in root.findall(f"{SVG}g")]
    expected = [
        f"{r.landcover_class} beside {r.neighbour}, {r.prediction}: {r.coactivation:.2f}"
        for r in filled.itertuples()
    ]
    assert sorted(titles) == sorted(expected)
    assert pair_heatmap(findings.pairs.iloc[:0], "gain", "t", ()) is None


def test_sentences_name_classes_whose_interval_leaves_out_one():
    table = pd.DataFrame(
        {
            "prediction": ["low", "low", "low", "high"],
            "landcover_class": ["roofs", "water", "roads", "roofs"],
            "n_cells": [50, 50, 50, 3],
            "activation_ratio": [1.5, 0.5, 1.1, 2.0],
            "ci_low": [1.2, 0.4, 0.9, 1.5],
            "ci_high": [1.8, 0.7, 1.3, 2.5],
        }
    )
    low, high = activation_sentences(table)
    assert "share on roofs (1.50); less on water (0.50)." in low
    assert "share on no class; less on no class." in high


# Scores ---------------------------------------------------------------------------------------


def test_score_table_has_a_column_per_fold_and_every_figure(findings):
    m, table = findings.metrics, score_table(findings.metrics)
    assert table["head"][-3:] == ["Fold 0", "Fold 1", "Fold 2"]
    assert all(len(row) == len(table["head"]) for row in table["rows"])
    rows = {row[0][0]: row for row in table["rows"]}
    low, high = m["intervals"]["pearson_r"]["blocks"]
    assert rows["Pearson r"][1][0] == number(m["pearson_r"])
    assert rows["Pearson r"][3][0] == f"[{number(low)}, {number(high)}]"
    assert rows["Exact class"][1][0] == f"{100 * m['accuracy']:.1f}\u202f%"
    assert rows["Exact class"][4][0] == f"{100 * m['observed_only']['accuracy']:.1f}\u202f%"
    low, high = m["folds"][2]["intervals"]["mae"]["cells"]
    assert rows["Mean error, classes"][-1] == (
        number(m["folds"][2]["mae"]),
        f"[{number(low)}, {number(high)}]",
    )


def test_both_kinds_of_folds_stand_side_by_side(cells, tmp_path):
    findings = analyse(
        cells, None, groups={}, n_bootstrap=50, other_folds=fake_spatial_folds(cells)
    )
    table = folds_table(findings.metrics["by_folds"])
    rows = {row[0][0]: [figure for figure, _ in row] for row in table["rows"]}
    gap = findings.metrics["by_folds"]["leakage_gap"]
    assert rows["Pearson r"][3] == f"+{gap['pearson_r']['value']:.2f}"
    assert rows["Mean error, classes"][3] == f"−{-gap['mae']['value']:.2f}"
    assert rows["Exact class"][3] == f"+{100 * gap['accuracy']['value']:.1f}"
    path = write_report(tmp_path / "r.html", cells, findings, title="Both")
    page = Page(path.read_text(encoding="utf-8"))
    assert (page.broken, page.open) == ([], [])
    assert "predicted by models of both kinds of fold" in page.text
    assert f"with spatial ones, a gap of {rows['Pearson r'][3]} [" in page.text


def test_one_kind_of_folds_is_said_to_be_the_only_one(findings, html):
    assert folds_table(None) is None
    assert "Only random folds were trained" in Page(html).text
    spatial = folds_sentence({"folds_kind": "spatial", "by_folds": None})
    assert "Only spatial folds were trained" in spatial
    assert "leak where incomes are smooth in space" in spatial


@pytest.mark.parametrize(
    ("value", "bounds", "said"),
    [
        (0.1, [0.05, 0.15], "a gap of +0.10 [0.05, 0.15] over blocks: random folds leak"),
        (0.1, [-0.05, 0.25], "no leak can be told from chance"),
        (-0.1, [-0.2, -0.05], "no leak can be told from chance"),
        (0.1, None, "a gap of +0.10; random folds leak"),
        (None, None, "cannot be measured"),
    ],
)
def test_sentence_on_the_gap_follows_its_interval(value, bounds, said):
    gap = {"pearson_r": {"value": value, "cells": bounds, "blocks": bounds}}
    kinds = {kind: {"pearson_r": None if value is None else 0.5} for kind in ("random", "spatial")}
    by_folds = kinds | {"leakage_gap": gap}
    assert said in folds_sentence({"folds_kind": "random", "by_folds": by_folds})


def test_points_of_the_reliability_chart_lie_on_its_axes(findings):
    bins = findings.metrics["reliability"]
    root = ElementTree.fromstring(reliability_chart(bins, 0.1))
    labels = {"middle": {}, "end": {}}
    for text in root.findall(f"{SVG}text"):
        if re.fullmatch(r"[\d.]+", text.text or ""):
            axis = text.get("text-anchor")
            place = float(text.get("x")) if axis == "middle" else float(text.get("y")) - 4
            labels[axis][float(text.text)] = place
    fit_x, fit_y = (np.polyfit(list(v), list(v.values()), 1) for v in labels.values())
    filled = [b for b in bins if b["n"]]
    points = root.findall(f"{SVG}g")
    assert len(points) == len(filled) == len(root.findall(f"{SVG}rect"))
    for b, point in zip(filled, points, strict=True):
        circle, line = point.find(f"{SVG}circle"), point.find(f"{SVG}path")
        assert float(circle.get("cx")) == pytest.approx(np.polyval(fit_x, b["confidence"]), abs=0.1)
        assert float(circle.get("cy")) == pytest.approx(np.polyval(fit_y, b["accuracy"]), abs=0.1)
        ends = re.fullmatch(r"M[\d.]+ ([\d.]+)V([\d.]+)", line.get("d"))
        expected = np.polyval(fit_y, b["intervals"]["blocks"])
        assert [float(e) for e in ends.groups()] == pytest.approx(expected, abs=0.1)
    heights = [float(bar.get("height")) for bar in root.findall(f"{SVG}rect")]
    assert np.argmax(heights) == np.argmax([b["n"] for b in filled])
    assert reliability_chart(None, None) is None


def test_lonely_bin_is_drawn_without_an_interval(findings):
    alone = {**findings.metrics["reliability"][4], "intervals": {"cells": None, "blocks": None}}
    root = ElementTree.fromstring(reliability_chart([alone], None))
    assert root.find(f"{SVG}g/{SVG}path") is None
    assert root.find(f"{SVG}g/{SVG}circle") is not None


# Pictures -------------------------------------------------------------------------------------


def test_overlay_glows_where_activation_is_and_is_dark_elsewhere():
    image = np.full((64, 64, 3), 200, dtype=np.uint8)
    activation = np.zeros((64, 64))
    activation[:16, :16] = 1.0
    for side, channel in (("low", 2), ("high", 0)):
        rgb = np.array(decoded(activation_overlay(image, activation, side, 320))).astype(int)
        assert rgb[4:12, 4:12].mean() > 200
        assert rgb[40:, 40:].mean() == pytest.approx(110, abs=4)
        faint = np.array(decoded(activation_overlay(image, activation + 0.001, side, 320))).astype(
            int
        )[40:, 40:]
        assert faint[..., channel].mean() > faint[..., 2 - channel].mean()
    unlit = np.array(decoded(activation_overlay(image, activation * np.nan, "low", 320)))
    assert unlit.std() < 3


def test_pictures_are_made_small_by_whole_squares():
    array = np.arange(49.0).reshape(7, 7)
    np.testing.assert_allclose(block_mean(array, 3), array[:6, :6].reshape(2, 3, 2, 3).mean((1, 3)))
    classes = np.zeros((800, 800), np.uint8)
    classes[:, 400:] = 3
    image = decoded(class_image(classes, {3: "#010203"}, 320))
    assert max(image.size) <= 320
    assert image.getpixel((image.size[0] - 1, 0)) == (1, 2, 3, 255)


def test_gallery_shows_at_most_twelve_and_names_what_is_seen(cells):
    one = fake_thumbnails(cells, 1)[0]
    shown = gallery([one] * 20, CLASSES, GROUPS, 5)
    assert len(shown["cells"]) == 12
    assert [name for name, _ in shown["legend"]] == ["dense urban fabric", "roads", "green urban"]
    blank = CellThumbnail("c", None, None, np.nan, one.image, one.low * 0, one.high)
    card = gallery([blank], CLASSES, GROUPS, 5)["cells"][0]
    assert card["true"] is card["predicted"] is card["p"] is None
    assert [caption for caption, _, _ in card["pictures"]] == [
        "Orthophoto",
        "Activation, low: none",
        "Activation, high",
    ]


# Small things ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30))
def test_any_text_survives_a_drawing_as_text(text):
    printable = "".join(c for c in text if c.isprintable())
    element = ElementTree.fromstring(tag("text", printable, title=printable))
    assert (element.text or "") == printable
    assert element.get("title") == printable


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 1e4))
def test_ticks_start_at_zero_and_reach_the_value(upper):
    ticks = nice_ticks(upper)
    assert ticks[0] == 0
    assert ticks[-2] < upper <= ticks[-1] * (1 + 1e-9)
    assert 2 <= len(ticks) <= 7


def test_colours_are_distinct_and_labels_legible():
    colours = landcover_colours(CLASSES[1:], GROUPS)
    assert len(set(colours.values())) == len(CLASSES) - 1
    for k in range(2, 11):
        assert len(set(ses_colours(k))) == k
    assert text_on("#f0e2ad") == INK
    assert text_on(ses_colours(5)[0]) == "#ffffff"


def test_provenance_is_flattened():
    assert provenance_sections(PROVENANCE) == [
        ("General", [("city", "Fakeville"), ("date", "2026-11-21"), ("seed", "0")]),
        ("model", [("head", "binomial"), ("gates", "swish, ungated")]),
        ("sources", [("1.name", "Filosofi"), ("1.vintage", "2019")]),
    ]
    assert provenance_sections(None) == []


@pytest.mark.parametrize(
    ("head", "said", "not_said"),
    [
        ("binomial", "a binomial output has a single number", "two lines of reasoning"),
        ("ordinal", "an ordinal output has a single number", "two lines of reasoning"),
        ("softmax", "two lines of reasoning", "two sides of one coin"),
    ],
)
def test_the_page_says_what_its_head_can_show(tmp_path, head, said, not_said):
    cells = fake_cells()
    cells.attrs["thresholds_of"] = "nation"
    findings = analyse(cells, None, groups=GROUPS, n_bootstrap=100)
    page = write_report(
        tmp_path / "r.html", cells, findings, title="x", provenance={"head": head}
    ).read_text()
    assert said in page
    assert not_said not in page
    assert "Where classes part was set by: nation." in page
