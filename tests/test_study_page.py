from __future__ import annotations

import math
import re
from itertools import pairwise, product
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.kernels.scores import SCORES
from sesgrid.report.study import print_lines, write_study
from sesgrid.report.study_charts import (
    matrix_chart,
    model_chart,
    resolution_chart,
    squeeze,
)
from sesgrid.stages.stability import Finding, stability_of_pairs, stability_table
from sesgrid.studies.comparisons import score_row
from tests.fake_city import GROUPS
from tests.test_report import Page

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>alert("x")</script>&amp;\'"'
NAMES = ("compare", "resolution", "stability", "transfer")
CITIES = ("Paris", "Lyon", "Marseille", "Nice", "Lille", "Bordeaux", "Toulouse", "Nantes", "Metz")
CITIES += ("Saint-Étienne-du-Rouvray 2015", "Saint-Étienne-du-Rouvray 2019", EVIL)


def scores(r, n=1234):
    """As of `sesgrid.studies.comparisons.score_row`, around a correlation."""
    values = dict(
        zip(
            SCORES,
            (r, r - 0.01, r - 0.02, 0.2 + r / 2, 0.6 + r / 4, 1.4 - r, r * r, 0.03, 0.21),
            strict=True,
        )
    )
    bounds = {k: {"cells": None, "blocks": [v - 0.061, v + 0.052]} for k, v in values.items()}
    return score_row({"n": n, **values, "intervals": bounds})


def trained(name, k, r, pixels=800, weights="random"):
    cost = {"parameters": 4_050_852 + k, "flops": 16_000 * pixels**2}
    return {
        "model": name, "pixels": pixels, "metres_per_pixel": 200 / pixels, **scores(r), **cost,
        "cells_per_s": 12.34 + k, "training_s": 3600.0, "initial_weights": weights,
    }  # fmt: skip


def results(variants, folds=5, city="Nice", weights="random", backbone="efficientnetb0"):
    return pd.DataFrame(
        {
            "variant": name, "city": city, "vintage": 2015, "backbone": backbone, "head": "binomial",
            "protocol": "scratch", "seed": k, "pixels": 800, "metres_per_pixel": 0.25,
            "folds_kind": "random", "configuration": f"{k:02d}abcdef0123456789", "fold": fold,
            "software": "sesgrid 0.1.0", "n": 246, **dict.fromkeys(SCORES, 0.5), "parameters": 4_050_852,
            "flops": 10_240_000_000, "cells_per_s": 12.3, "epochs": 8, "best_epoch": 6,
            "initial_weights": weights, "model_sha256": f"{k}{fold}" * 32, "seconds": 720.0,
        }
        for (k, name), fold in product(enumerate(variants), range(folds))
    )  # fmt: skip


def compared(names=("efficientnetb0 binomial", "vgg16 binomial", "resnet50 softmax"), **more):
    lost = dict.fromkeys(scores(0), math.nan)
    rows = [
        {"model": "baseline: commonest class", **scores(0.0), "pearson_r_low": None, "pearson_r_high": None},
        {"model": "baseline: boosting", **scores(0.41)},
        *(trained(name, k, 0.62 - 0.17 * k) for k, name in enumerate(names)),
    ]  # fmt: skip
    rows[-1] |= lost if len(names) > 3 else {}
    return {"compare": pd.DataFrame(rows), "results": results(names, **more)}


def resolved(sizes=(800, 400, 200, 100)):
    rows = [trained(f"{p} px", 0, 0.65 - 0.3 * (k / 8) ** 2, p) for k, p in enumerate(sizes)]
    return {"resolution": pd.DataFrame(rows), "results": results([r["model"] for r in rows])}


def found(classes=tuple(GROUPS), seeds=(0, 1), folds=5, spread=0.15):
    rng = np.random.default_rng(7)
    mean = {side: np.exp(rng.normal(0, 0.35, len(classes))) for side in ("low", "high")}
    for seed, fold in product(seeds, range(folds)):
        parts = [
            pd.DataFrame({"prediction": side, "landcover_class": classes,
                          "activation_ratio": m * np.exp(rng.normal(0, spread, len(classes))),
                          "n_cells": rng.integers(3, 90, len(classes))})
            for side, m in mean.items()
        ]  # fmt: skip
        yield Finding("efficientnetb0", seed, fold, pd.concat(parts, ignore_index=True))


def stable(**more):
    findings = list(found(**more))
    every = [f.ratios.assign(backbone=f.backbone, seed=f.seed, fold=f.fold) for f in findings]
    variants = sorted({f"efficientnetb0 binomial seed {f.seed}" for f in findings})
    return {
        "stability": stability_table(findings),
        "agreement": stability_of_pairs(findings),
        "findings": pd.concat(every, ignore_index=True),
        "results": results(variants, len({f.fold for f in findings})),
    }


def transferred(cities=CITIES[:5], thresholds_of="city", folds_kind="random"):
    rng = np.random.default_rng(3)
    rows = [
        {"train_on": a, "test_on": b, **scores(0.66 if a == b else rng.uniform(-0.05, 0.6))}
        for a, b in product(cities, cities)
    ]
    table = pd.DataFrame(rows)
    names = list(cities)
    matrices = {
        s: table.pivot(index="train_on", columns="test_on", values=s).loc[names, names] for s in SCORES[:4]
    }  # fmt: skip
    made = {
        "protocol": "paper", "backbone": "vgg16", "head": "softmax", "seed": 0, "folds_kind": folds_kind,
        "thresholds_of": thresholds_of, "configuration": "00abcdef", "software": "sesgrid 0.1.0",
    }  # fmt: skip
    return {"transfer": table, **matrices, "results": table.assign(**made)}


MADE = {"compare": compared, "resolution": resolved, "stability": stable, "transfer": transferred}
SIZES = {
    "compare": [{}, {"names": ("efficientnetb0 binomial",)}, {"names": tuple("abcdefghijkl")}],
    "resolution": [{}, {"sizes": (400,)}, {"sizes": (800, 400, 200, 160, 100, 80, 50, 40, 32)}],
    "stability": [{}, {"classes": ("roads",), "seeds": (0,), "folds": 1}, {"spread": 0.8}],
    "transfer": [{}, {"cities": CITIES[:2]}, {"cities": CITIES}],
}
EACH = [(name, more) for name, sizes in SIZES.items() for more in sizes]


def page_of(tmp_path, name, tables):
    return write_study(tmp_path / "new" / "index.html", name, tables).read_text(encoding="utf-8")


def drawings(html):
    found = re.findall(r"<svg xmlns.*?</svg>", html, flags=re.S)
    return [ElementTree.fromstring(drawing) for drawing in found]


def said_by(group):
    return group.find(f"{SVG}title").text


def groups_in(root):
    """Groups that say what they show."""
    return [g for g in root.iter(f"{SVG}g") if g.find(f"{SVG}title") is not None]


def ends(path):
    """Of a horizontal line "M1 2H3"."""
    return [
        float(x) for x in re.fullmatch(r"M(-?[\d.]+) -?[\d.]+H(-?[\d.]+)", path.get("d")).groups()
    ]


def number_of(text):
    return float(text.replace("−", "-"))


def axis_of(root):
    """The straight line from values to x that the numbers below a horizontal axis show."""
    numbers = [
        (number_of(t.text), float(t.get("x")))
        for t in root.findall(f"{SVG}text")
        if t.get("text-anchor") == "middle" and re.fullmatch(r"−?[\d.]+", t.text or "")
    ]
    return np.polyfit(*zip(*numbers, strict=True), 1)


# The page -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "more"), EACH)
def test_page_is_whole_offline_and_without_nan(tmp_path, name, more):
    html = page_of(tmp_path, name, MADE[name](**more))
    page = Page(html)
    assert (page.broken, page.open) == ([], [])
    assert not page.all("script")
    assert not page.all("link")
    assert all(not {"src", "href", "srcset"} & set(attributes) for _, attributes in page.tags)
    assert not re.search(r"url\(|@import|\son\w+=", html.replace("alert", ""))
    assert "default-src 'none'" in html
    assert not re.search(r"\bnan\b|\bNone\b|<NA>|\binf\b", page.text.split("figure + .empty", 1)[1])
    roots = drawings(html)
    assert len(roots) == (4 if name == "transfer" else 1)
    for root in roots:
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert not re.search(r"\b(nan|inf|None)\b", ElementTree.tostring(root, encoding="unicode"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("compare", ["from random weights on few cells says nothing", "of the machine", "leak"]),
        ("resolution", ["Initial weights: random", "averaging", "of the machine", "leak"]),
        ("stability", ["same side of 1", "none of the city", "Folds: 5; seeds of weights", "0, 1"]),
        ("transfer", ["Classes are those of the tested city", "Random folds leak", "season"]),
    ],
)
def test_page_says_how_it_is_to_be_read(tmp_path, name, said):
    text = Page(page_of(tmp_path, name, MADE[name]())).text
    for words in said:
        assert words in text, words


def test_other_weights_and_folds_are_said_to_be_such(tmp_path):
    tables = compared(weights="imagenet")
    tables["results"]["folds_kind"] = "spatial"
    text = Page(page_of(tmp_path, "compare", tables)).text
    assert "Initial weights: imagenet." in text
    assert "Folds are blocks in space." in text
    assert "says nothing of their worth" not in text
    assert "leak" not in text


def test_values_intervals_and_costs_are_in_the_page(tmp_path):
    html = page_of(tmp_path, "compare", compared())
    assert html.count("<td>60.0</td>") == 3  # minutes of training
    text = Page(html).text
    assert "3 networks and 2 baselines" in text
    r = 0.62
    for said in (
        f"{r:.2f}", f"[{r - 0.061:.2f}, {r + 0.052:.2f}]",
        f"{100 * (0.2 + r / 2):.1f}\u202f%", f"{100 * (0.6 + r / 4):.1f}\u202f%", f"{1.4 - r:.2f}",
        "4.05", "10.24", "12.3", "1,234", "random",
    ):  # fmt: skip
        assert said in text, said


def test_who_made_it_is_named(tmp_path):
    tables = compared(city="Nice")
    text = Page(page_of(tmp_path, "compare", tables)).text
    for said in ("sesgrid 0.1.0", "Nice · 2015", "scratch"):
        assert said in text, said
    for row in tables["results"].itertuples():
        assert row.configuration in text
        assert row.model_sha256[:12] in text
    text = Page(page_of(tmp_path, "transfer", transferred())).text
    for said in ("sesgrid 0.1.0", "vgg16", "00abcdef", "quantiles of income within it"):
        assert said in text, said
    national = transferred(CITIES[:2], "nation", "spatial")
    text = Page(page_of(tmp_path, "transfer", national)).text
    assert "parted by quantiles of: nation" in text
    assert "within it" not in text
    assert "leak" not in text


def test_hostile_names_stay_text(tmp_path):
    names = (EVIL, f"baseline: {EVIL}", EVIL * 8)
    made = {
        "compare": compared(names, city=EVIL, weights=EVIL),
        "stability": stable(classes=(*names, "roads", "water"), folds=3),
        "transfer": transferred((EVIL, EVIL * 8, "Nice")),
        "resolution": resolved(),
    }
    made["resolution"]["results"]["software"] = EVIL
    for name, tables in made.items():
        html = page_of(tmp_path, name, tables)
        page = Page(html)
        assert "<script" not in html.lower()
        assert (page.broken, page.open) == ([], [])
        assert EVIL in page.text
        assert len(drawings(html)) >= 1


def test_missing_values_are_en_dashes(tmp_path):
    tables = compared()
    table = tables["compare"]
    lost = [c for c in table if c.endswith(("_low", "_high"))]
    table[lost] = None
    table.loc[2, "pearson_r"] = math.nan
    html = page_of(tmp_path, "compare", tables)
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", html)
    cells = {name: re.findall(r"<td.*?>(.*?)</td>", row) for name, row in rows[:5]}
    assert cells["efficientnetb0 binomial"][1] == "–"
    assert cells["vgg16 binomial"][1] == "0.45"
    costs = {name: re.findall(r"<td.*?>(.*?)</td>", row) for name, row in rows[5:10]}
    assert costs["baseline: boosting"] == ["–"] * 5
    lines = list(print_lines("compare", tables))
    assert lines[3].split()[2:4] == ["–", "–"]


def test_tables_of_nothing_are_said_to_be_so(tmp_path):
    nothing = {"stability": pd.DataFrame(), "agreement": stability_of_pairs([])}
    text = Page(page_of(tmp_path, "stability", nothing)).text
    assert "nothing to draw" in text
    assert "How alike two models rank the classes: there is nothing to tell" in text
    lines = list(print_lines("stability", nothing))
    assert "no agreement to tell" in lines[0]
    assert lines[1:] == [
        f"predicted {side}, {where} 1 in all models: none"
        for side in ("low", "high")
        for where in ("above", "below")
    ]


def test_failed_writing_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "index.html"
    path.write_text("old", encoding="utf-8")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("sesgrid.store.parts.os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_study(path, "compare", compared())
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_comparison_and_missing_table_are_named(tmp_path):
    with pytest.raises(ConfigError, match="compare, resolution, stability, transfer, received 'x'"):
        write_study(tmp_path / "x.html", "x", {})
    with pytest.raises(
        MissingInputError, match="expected a table 'transfer', received \\['results'\\]"
    ):
        list(print_lines("transfer", {"results": pd.DataFrame()}))


# Figures --------------------------------------------------------------------------------------


def test_models_lie_on_the_axis_and_baselines_apart():
    table = compared(("a", "b", "c"))["compare"]
    table.loc[3, "pearson_r"] = -0.2
    root = ElementTree.fromstring(model_chart(table))
    axis = axis_of(root)
    groups = {said_by(g).split(":")[0]: g for g in groups_in(root)}
    for row in table.iloc[2:].itertuples():
        circle, line = groups[row.model].find(f"{SVG}circle"), groups[row.model].find(f"{SVG}path")
        assert float(circle.get("cx")) == pytest.approx(np.polyval(axis, row.pearson_r), abs=0.1)
        expected = np.polyval(axis, [row.pearson_r_low, row.pearson_r_high])
        assert ends(line) == pytest.approx(expected, abs=0.1)
        assert circle.get("fill") == circle.get("stroke")
    apart = [g for g in root.findall(f"{SVG}g") if said_by(g).startswith("baseline")]
    assert len(apart) == 2
    assert all(g.find(f"{SVG}circle") is None for g in apart)
    assert {g[-1].get("fill") for g in apart} == {"#fdfdfb"}
    lowest_network = max(
        float(g.find(f"{SVG}text").get("y")) for g in groups.values() if g not in apart
    )
    assert all(float(g.find(f"{SVG}text").get("y")) > lowest_network for g in apart)
    assert "best baseline 0.41" in "".join(root.itertext())


def test_what_is_not_known_is_not_drawn():
    table = compared(("a",))["compare"]
    table[["pearson_r", "pearson_r_low", "pearson_r_high"]] = math.nan
    root = ElementTree.fromstring(model_chart(table))
    assert root.find(f".//{SVG}circle") is None
    assert "best baseline" not in "".join(root.itertext())
    assert ElementTree.fromstring(model_chart(table.iloc[2:])) is not None


def test_resolutions_lie_on_a_logarithmic_axis():
    table = resolved((800, 400, 160, 100))["resolution"].sample(frac=1, random_state=1)
    root = ElementTree.fromstring(resolution_chart(table))
    points = [
        (said_by(g), g.find(f"{SVG}circle"), g.find(f"{SVG}path")) for g in root.findall(f"{SVG}g")
    ]
    metres = [float(said.split(" m")[0]) for said, _, _ in points]
    assert metres == [0.25, 0.5, 1.25, 2.0]
    x = np.array([float(c.get("cx")) for _, c, _ in points])
    ratio = (x[1:] - x[0]) / np.log(np.array(metres[1:]) / metres[0])
    assert ratio == pytest.approx([ratio[0]] * 3, rel=1e-3)
    left = [(number_of(t.text), float(t.get("y")) - 4) for t in root.findall(f"{SVG}text")
            if t.get("text-anchor") == "end" and re.fullmatch(r"−?[\d.]+", t.text)]  # fmt: skip
    axis = np.polyfit(*zip(*left, strict=True), 1)
    table = table.sort_values("metres_per_pixel")
    for (_, circle, line), row in zip(points, table.itertuples(), strict=True):
        assert float(circle.get("cy")) == pytest.approx(np.polyval(axis, row.pearson_r), abs=0.1)
        low, high = map(float, re.fullmatch(r"M[\d.]+ ([\d.]+)V([\d.]+)", line.get("d")).groups())
        expected = np.polyval(axis, [row.pearson_r_low, row.pearson_r_high])
        assert [low, high] == pytest.approx(expected, abs=0.1)


def test_names_of_resolutions_do_not_overlap():
    table = resolved((840, 420, 280, 210, 168, 140, 120, 105, 84, 70, 60, 56))["resolution"]
    root = ElementTree.fromstring(resolution_chart(table))
    places = [float(g.findall(f"{SVG}text")[1].get("x")) for g in root.findall(f"{SVG}g")
              if g.find(f"{SVG}text") is not None]  # fmt: skip
    assert np.diff(places).min() >= 34
    assert len(root.findall(f"{SVG}g/{SVG}circle")) == 12


def test_ranges_of_ratios_lie_around_one_and_holding_classes_are_filled(tmp_path):
    table = stable(spread=0.3)["stability"]
    (root,) = drawings(page_of(tmp_path, "stability", {"stability": table}))
    axis = axis_of(root)
    drawn = {said_by(g).split(":")[0]: g for g in groups_in(root)}
    assert len(drawn) == len(table)
    for row in table.itertuples():
        group = drawn[f"{row.landcover_class}, {row.prediction}"]
        line, mark = group[1], group[2]
        assert ends(line) == pytest.approx(np.polyval(axis, [row.lowest, row.highest]), abs=0.1)
        x = mark.get("cx") or re.match(r"M([\d.]+)", mark.get("d")).group(1)
        assert float(x) == pytest.approx(np.polyval(axis, row.mean), abs=0.1)
        assert (mark.get("fill") == mark.get("stroke")) == row.holds
        assert (row.lowest > 1 or row.highest <= 1) == row.holds
    reference = root.find(f"{SVG}path[@stroke='#c08a00']").get("d")
    assert float(re.match(r"M([\d.]+)", reference).group(1)) == pytest.approx(
        np.polyval(axis, 1), abs=0.1
    )


def test_one_model_cannot_agree_with_itself(tmp_path):
    tables = stable(classes=tuple("abcdefgh"), seeds=(0,), folds=1)
    assert not tables["stability"]["holds"].any()
    (root,) = drawings(page_of(tmp_path, "stability", tables))
    assert {m.get("fill") for m in root.iter(f"{SVG}circle")} == {"#fdfdfb"}
    assert all(line.endswith("none") for line in list(print_lines("stability", tables))[1:])


@pytest.mark.parametrize("n", [2, 6, 7, 12])
def test_matrix_has_rows_trained_and_columns_tested(n):
    names = list(CITIES[-n:])
    values = np.arange(n * n, dtype=float).reshape(n, n) / n**2 - 0.1
    matrix = pd.DataFrame(values, index=names, columns=names)
    bounds = {(names[0], names[1]): "[0.1, 0.2]"}
    root = ElementTree.fromstring(matrix_chart(matrix, "r", bounds=bounds))
    cells = root.findall(f"{SVG}g")
    place = [
        (float(c.find(f"{SVG}rect").get("y")), float(c.find(f"{SVG}rect").get("x"))) for c in cells
    ]
    order = sorted(range(n * n), key=lambda k: place[k])
    shown = [number_of(cells[k].find(f"{SVG}text").text) for k in order]
    assert shown == pytest.approx(values.ravel(), abs=0.0051)
    widths = [cells[k].find(f"{SVG}rect").get("stroke-width") for k in order]
    assert [w != "1" for w in widths] == np.eye(n, dtype=bool).ravel().tolist()
    said = said_by(cells[order[1]])
    assert said.startswith(f"trained on {names[0]}, tested on {names[1]}: ")
    assert ("[0.1, 0.2]" in [t.text for t in cells[order[1]].findall(f"{SVG}text")]) == (n <= 6)
    fills = [cells[k].find(f"{SVG}rect").get("fill") for k in order]
    light = [sum(int(f[i : i + 2], 16) for i in (1, 3, 5)) for f in fills]
    assert all(b <= a for a, b in pairwise(light))


@pytest.mark.parametrize(
    "cities", [CITIES[:2], CITIES, (EVIL * 9, "W" * 99, "m" * 40), ("都" * 30, "A")]
)
def test_names_of_cities_stay_inside_the_drawing(cities):
    matrix = transferred(cities)["pearson_r"]
    root = ElementTree.fromstring(matrix_chart(matrix, "Pearson r"))
    width = float(root.get("viewBox").split()[2])
    wide = {"W": 13, "m": 13, "都": 13}
    for text in root.findall(f"{SVG}text"):
        length = sum(wide.get(c, 6.5) for c in text.text)
        turned = re.fullmatch(
            r"translate\(([\d.]+) ([\d.]+)\) rotate\(-45\)", text.get("transform", "")
        )
        if turned:
            x, y = map(float, turned.groups())
            assert x + 0.71 * length <= width
            assert y - 0.71 * length >= 14
        elif text.get("text-anchor") == "end":
            assert float(text.get("x")) - length >= 18


def test_matrix_of_unknown_scores_is_drawn():
    names = ["a", "b"]
    root = ElementTree.fromstring(matrix_chart(pd.DataFrame(math.nan, names, names), "r"))
    assert [c.find(f"{SVG}text").text for c in root.findall(f"{SVG}g")] == ["–"] * 4


# Lines ----------------------------------------------------------------------------------------


def test_lines_are_aligned_and_hold_the_main_scores():
    tables = compared()
    lines = list(print_lines("compare", tables))
    assert lines[0].split("  ")[0] == "Model"
    at = lines[0].index("Pearson r") + len("Pearson r")
    for line, row in zip(lines[1:-1], tables["compare"].itertuples(), strict=True):
        assert line.startswith(row.model)
        assert line[:at].endswith(f"{row.pearson_r:.2f}")
    figures = ["[0.56, 0.67]", "51.0 %", "75.5 %", "0.78", "4.05", "10.24", "12.3"]
    assert re.split(r" {2,}", lines[3])[-7:] == figures
    assert lines[1].split()[-3:] == ["–"] * 3
    assert lines[-1].endswith("initial weights: random")


def test_lines_of_the_other_comparisons():
    resolution = list(print_lines("resolution", resolved()))
    assert resolution[1].split()[:3] == ["0.250", "800", "0.65"]
    matrix = transferred(CITIES[:9])["pearson_r"]
    assert (matrix.round(2) < 0).any(axis=None)
    lines = list(print_lines("transfer", transferred(CITIES[:9])))
    for line, (name, row) in zip(lines[1:-1], matrix.iterrows(), strict=True):
        assert line.split() == [name, *(f"{v:.2f}".replace("-", "−") for v in row)]
    tables = stable()
    lines = list(print_lines("stability", tables))
    first = tables["agreement"].iloc[0]
    assert lines[1].split() == [
        first["differ_in"], first["prediction"], str(first["pairs"]),
        *(f"{first[c]:.2f}" for c in ("rank_correlation", "lowest", "highest")),
    ]  # fmt: skip
    table = tables["stability"]
    for line in lines[-4:]:
        side, where = re.match(r"predicted (\w+), (\w+) 1", line).groups()
        of_side = table[table["prediction"] == side]
        held = of_side[(of_side["lowest"] > 1) if where == "above" else (of_side["highest"] <= 1)]
        said = [re.sub(r" \(.*\)", "", n) for n in line.split(": ")[1].split(", ")]
        assert said == (held["landcover_class"].tolist() or ["none"])


def test_lines_obey_no_name():
    names = ("a\x1b[31mred", "b\nnew line", "c" * 300)
    lines = list(print_lines("compare", compared(names)))
    assert len(lines) == 7
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 160


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=60), st.integers(4, 40))
def test_squeezed_text_keeps_its_ends(text, limit):
    short = squeeze(text, limit)
    assert len(short) == min(len(text), limit)
    assert short == text or (short[0], short[-1]) == (text[0], text[-1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6))
def test_every_correlation_has_a_place_on_its_axis(values):
    table = pd.DataFrame({"model": [f"m{k}" for k in range(len(values))], "pearson_r": values})
    table[["pearson_r_low", "pearson_r_high"]] = np.array([values, values]).T
    root = ElementTree.fromstring(model_chart(table))
    for circle in root.iter(f"{SVG}circle"):
        assert 319.9 <= float(circle.get("cx")) <= 830.1
