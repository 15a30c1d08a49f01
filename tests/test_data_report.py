"""The data report: sound HTML that loads nothing, with faults at the top, and the same in numbers."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scripts.data.reporting import page as page_module
from scripts.data.reporting.charts import histogram, log_ends
from scripts.data.reporting.report import quartiles, summarise, write_report

NASTY = "AMOS22_<script>alert('x')</script>&\"\udce9\x00"
VOID = {"meta", "img", "path", "circle", "rect"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that what is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID or (tag == "rect" and "/>" not in self.get_starttag_text()):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def record(case: str, patient: str, **changes: Any) -> dict[str, Any]:
    structure = {"value": 1, "voxels": 10, "ml": 1500.0, "cut": False}
    return {
        "case": case,
        "data_set": "AMOS22",
        "patient": patient,
        "label": "label.nii.gz",
        "labels": {"1": "liver"},
        "shape": [512, 512, 100],
        "spacing_mm": [0.8, 0.8, 5.0],
        "axcodes": "LPS",
        "field_of_view_mm": [409.6, 409.6, 500.0],
        "intensity": {"min": -1024.0, "p01": -1000.0, "median": -100.0, "p99": 300.0, "max": 2000.0},
        "structures": {"liver": structure},
    } | changes


def arguments(folder: Path, cases: int = 6, **changes: Any) -> dict[str, Any]:
    records = [record(f"AMOS22_{number}", f"AMOS22/{number // 2}") for number in range(cases)]
    thumbnails = {}
    for one in records:
        thumbnails[one["case"]] = folder / f"{one['case']}.png"
        Image.new("RGB", (8, 8)).save(thumbnails[one["case"]])
    return {
        "about": {"name": "AMOS22", "licence": "CC BY 4.0", "source": "https://example.org/?a=1&b=2", "volumes": 500},
        "records": records,
        "splits": {one["case"]: "test" if number < 2 else "training" for number, one in enumerate(records)},
        "skipped": [],
        "faults": [],
        "thumbnails": thumbnails,
        "duplicates": [],
    } | changes


def written(folder: Path, **changes: Any) -> tuple[str, Reader]:
    write_report(folder / "report.html", **arguments(folder, **changes))
    page = (folder / "report.html").read_text(encoding="utf-8")
    return page, Reader(page)


def test_the_page_is_sound_html_and_loads_and_runs_nothing(tmp_path: Path) -> None:
    page, reader = written(tmp_path)
    assert page.startswith("<!DOCTYPE html>") and reader.open == []
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    loaded = [value for _, name, value in reader.attributes if name in ("src", "srcset", "data", "background")]
    assert len(loaded) == 6 and all(value.startswith("data:image/png;base64,") for value in loaded)
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert "url(" not in page and "@import" not in page
    assert ("a", "href", "https://example.org/?a=1&b=2") in reader.attributes


def test_texts_from_outside_are_escaped_everywhere(tmp_path: Path) -> None:
    nasty = record(NASTY, NASTY, structures={NASTY: {"value": 1, "voxels": 1, "ml": 2.0}})
    fault = {"case": NASTY, "kind": NASTY, "sentence": f"{NASTY}: odd"}
    picture = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(picture)
    about = {"name": NASTY, "licence": NASTY, "source": f"javascript:{NASTY}", "note": NASTY, "volumes": NASTY}
    changes = {"about": about, "records": [nasty], "splits": {NASTY: NASTY}, "skipped": [fault], "faults": [fault]}
    page, reader = written(
        tmp_path, **changes, thumbnails={NASTY: picture}, duplicates=[{"cases": [NASTY, "b"], "sentence": NASTY}]
    )
    assert reader.open == [] and reader.tags["script"] == 0 and reader.tags["a"] == 0
    assert "<script" not in page and "\x00" not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;&quot;?") >= 10
    assert json.loads((tmp_path / "report.json").read_text())["data_set"].startswith("AMOS22_<script>")


def test_the_same_input_gives_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    written(tmp_path)
    first = [(tmp_path / name).read_bytes() for name in ("report.html", "report.json")]
    written(tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("report.html", "report.json")] == first
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".json", ".png"}


def test_faults_stand_at_the_top_by_kind_and_a_sound_set_is_said_to_be_one(tmp_path: Path) -> None:
    _, sound = written(tmp_path)
    assert "Nothing stands out." in sound.words and "Left out" not in sound.words
    faults = [
        {"case": "AMOS22_5", "kind": "volume", "sentence": "AMOS22_5: liver has 9 ml"},
        {"case": "AMOS22_4", "kind": "side", "sentence": "AMOS22_4: left kidney lies to the right"},
    ]
    skipped = [{"case": "AMOS22_9", "sentence": "AMOS22_9: cannot be read"}]
    duplicates = [{"cases": ["AMOS22_1", "WORD_3"]}]
    page, reader = written(tmp_path, faults=faults, skipped=skipped, duplicates=duplicates)
    order = ["Left out", "AMOS22_9: cannot be read", "What to look at", "AMOS22_4: left", "AMOS22_5: liver"]
    order += ["The same image twice", "AMOS22_1 and WORD_3 show the same image", "Splits", "Structures", "Cases"]
    places = [reader.words.index(text) for text in order]
    assert places == sorted(places)
    assert re.findall(r'alt="(\w+)"', page)[:3] == ["AMOS22_4", "AMOS22_5", "AMOS22_0"]


def test_of_many_cases_some_thumbnails_are_shown_and_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "SHOWN_PICTURES", 4)
    _, reader = written(tmp_path, faults=[{"case": "AMOS22_5", "kind": "side", "sentence": "AMOS22_5: x"}])
    assert reader.tags["img"] == 4
    assert "4 of 6 cases; 2 more are not shown. Those to look at come first." in reader.words


def test_of_many_faults_of_a_kind_some_are_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    faults = [{"case": f"c{n}", "kind": "volume", "sentence": f"c{n}: x"} for n in range(60)]
    _, reader = written(tmp_path, faults=faults)
    assert "unusual volume: 60" in reader.words and "and 10 more, which faults.json lists" in reader.words
    assert "c49: x" in reader.words and "c50: x" not in reader.words


def test_a_set_without_labels_or_thumbnails_and_one_without_cases_have_a_page(tmp_path: Path) -> None:
    records = [record("a", "a", label=None, structures={})]
    _, reader = written(tmp_path, records=records, splits={}, thumbnails={"a": tmp_path / "none.png"})
    assert reader.open == [] and "in no split" in reader.words and "Structures" not in reader.words
    _, reader = written(tmp_path, records=[], splits={}, thumbnails={})
    assert reader.open == [] and "nothing known" in reader.words


def test_numbers_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    unknown = dict.fromkeys(("min", "p01", "median", "p99", "max"))
    records = [record("a", "a", intensity=unknown, axcodes="??S"), record("b", "b")]
    _, reader = written(tmp_path, records=records)
    assert reader.open == []
    summary = json.loads((tmp_path / "report.json").read_text())
    assert summary["intensity"]["median"]["n"] == 1 and summary["spacing_mm"]["R-L"]["n"] == 1


def test_a_structure_that_is_cut_counts_where_few_are_whole() -> None:
    def one(number: int, ml: float, cut: bool) -> dict[str, Any]:
        return record(f"c{number}", f"p{number}", structures={"liver": {"value": 1, "ml": ml, "cut": cut}})

    records = [one(n, 1000.0, False) for n in range(3)] + [one(9, 10.0, True)]
    found = summarise({}, records, {}, [], [], [])["structures"]["liver"]
    assert (found["cases"], found["whole"], found["ml_of"], found["ml"]["min"]) == (4, 3, "whole", 1000.0)
    records = [one(0, 1000.0, False)] + [one(n, 10.0, True) for n in range(1, 9)]
    found = summarise({}, records, {}, [], [], [])["structures"]["liver"]
    assert (found["whole"], found["ml_of"], found["ml"]["median"]) == (1, "all", 10.0)


def test_the_summary_counts_cases_and_patients_by_split(tmp_path: Path) -> None:
    written(tmp_path)
    summary = json.loads((tmp_path / "report.json").read_text())
    assert (summary["cases"], summary["patients"], summary["labelled"]) == (6, 3, 6)
    assert summary["splits"] == {"training": {"cases": 4, "patients": 2}, "test": {"cases": 2, "patients": 1}}
    assert summary["axcodes"] == {"LPS": 6}
    assert summary["spacing_mm"]["S-I"]["median"] == 5.0
    assert summary["structures"]["liver"]["ml"] == quartiles([1500.0] * 6)


def test_quartiles_of_nothing_are_none() -> None:
    assert quartiles([None]) is None
    assert quartiles([1, 2, 3, 4, 5, None]) == {
        "n": 5,
        "min": 1.0,
        "lower_quartile": 2.0,
        "median": 3.0,
        "upper_quartile": 4.0,
        "max": 5.0,
    }


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [-1024.0, -1024.0], [1e-3, 2e-3], [0.0, 65535.0], [-3.0, 4.0]])
def test_a_histogram_counts_every_value_whatever_its_range(values: list[float]) -> None:
    counts = [int(count) for count in re.findall(r": (\d+)</title>", histogram(values, "mm"))]
    assert sum(counts) == len(values)
    assert 3 <= histogram(values, "mm").count('text-anchor="middle"') <= 7


def test_a_logarithmic_axis_holds_all_volumes() -> None:
    assert log_ends([0.0, 0.02, 1500.0]) == (0.01, 10000.0)
    assert log_ends([1.0]) == (1.0, 10.0)
    assert log_ends([0.0]) == (1.0, 10.0)
