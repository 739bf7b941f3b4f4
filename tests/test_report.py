"""The report: every format says the same, escapes what it is given, and the page works where it is read."""

from __future__ import annotations

import html as markup
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from dualopt_conformance import report
from dualopt_conformance.mutation_table import Mutation
from dualopt_conformance.report.words import NOTHING, cleaned, overall, units
from dualopt_conformance.verdict import (
    FAIL,
    FLUSHED,
    ORACLE,
    PASS,
    SHOWN,
    Check,
    Finding,
    Side,
    Verdict,
)

CURVE = ((1, 0.0), (10, 1.5), (100, 4.25), (1000, 12.0))
ENVELOPE = ((1, 4.0), (10, 13.0), (100, 41.0), (1000, 127.0))
FOUND = Finding(3, "m of tall", (4, 2), "0x1.f9adbp-4", "0x1.f9ae3p-4", "0x1.f9adcp-4", 9.317, 4.5, "mine")
SECOND = Finding(77, "odd", (128,), "-0x1.0p-126", "0x0.0p+0", "-0x1.0p-126", 1234.5, 2.25, "yours")
HOSTILE = "<script>alert(1)</script> | `x` **b** [a](b) @all #1 &amp; \"'\n\r\t\x1b[31m\x00\x85\u202e θ 漢 \ud800 \\|"
FORMATS = ("markdown", "junit", "html", "terminal")
VOID = {"meta", "link", "br"}
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MUTANTS = (
    Mutation("lerp", "memory", "the same, written as a blend", True, False, "adamw/usual", "m of tall", 3.0, 4.5),
    Mutation("late", "motion", "shrinks after the update", False, True, "adamw/usual", "tall", 1180.0, 4.5),
    Mutation("coarse", "direction", "products of ten bits", False, False, "", "", 0.0, 0.0),
)


def side(label: str) -> Side:
    return Side(label, {"backend": label, "device": "cpu", "python": "3.11.7"})


def check(case: str = "adamw/usual", status: str = PASS, experiment: str = "lockstep", **changes: object) -> Check:
    sides = ("mine", "yours")
    made = Check(
        case, "fast", experiment, sides, status, compared=1000, differing=12, worst=1.9, budget=4.5, derived=4.5
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def verdict(*checks: Check, labels: Sequence[str] = ("mine", "yours"), warnings: Sequence[str] = ()) -> Verdict:
    return Verdict(tuple(map(side, labels)), checks, tuple(warnings))


def large(size: int = 500) -> Verdict:
    cases = [f"row{i % 9}.variant{i}/usual" for i in range(size)]
    return verdict(*(check(case, experiment="free", curve=CURVE, envelope=ENVELOPE) for case in cases))


PASSING = verdict(check(), check("lion/usual", tier="exact", worst=0.0, budget=0.0, differing=0))
FAILING = verdict(
    check(status=FAIL, worst=9.317, first=FOUND, note="look at m"),
    check("lion.cautious/usual", FAIL, "free", worst=1234.5, budget=2.25, first=SECOND),
    check("sgdm/usual"),
)
ONLY_SHOWN = verdict(check(status=SHOWN, note="not judged here"))
EMPTY_PASS = verdict(check(compared=0, differing=0, worst=0.0))
THREE = verdict(
    check(),
    check(sides=("mine", "theirs")),
    check("sgdm/underflow", FLUSHED, sides=(ORACLE, "theirs"), tier="exact", budget=0.0, worst=0.0, flushed=17, ties=3),
    check("closed/lion", experiment="closed", worst=0.002, budget=0.04, note="losses 2.311 and 2.309"),
    check(status=SHOWN, experiment="free", curve=CURVE, envelope=ENVELOPE),
    labels=("mine", "yours", "theirs"),
    warnings=("mine ran another version",),
)
VERDICTS = {
    "passing": PASSING,
    "failing": FAILING,
    "only shown": ONLY_SHOWN,
    "empty pass": EMPTY_PASS,
    "three": THREE,
    "no checks": verdict(),
    "nothing at all": Verdict((), ()),
}


def written(form: str, found: Verdict, mutants: Sequence[Mutation] | None = None) -> str:
    """The report as its reader sees it: markup resolved."""
    if form == "junit":
        return report.junit(found)
    text: str = getattr(report, form)(found, mutants)
    return text


def visible(form: str, found: Verdict, mutants: Sequence[Mutation] | None = None) -> str:
    """The words alone, on one line."""
    text = written(form, found, mutants)
    if form == "junit":
        parts = [x for node in ET.fromstring(text).iter() for x in (*node.attrib.values(), node.text or "")]
        return " ".join(" ".join(parts).split())
    if form in {"html", "markdown"}:
        text = markup.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<style>.*?</style>", "", text, flags=re.S)))
    return " ".join(text.split())


class Reader(HTMLParser):
    """Raises if an element is not closed where it should be; keeps names, attributes and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


def hostile() -> Verdict:
    long = "x" * 400
    finding = Finding(1, HOSTILE, (0,), HOSTILE, "0x1p+0", HOSTILE, float("nan"), float("inf"), HOSTILE)
    checks = (
        check(HOSTILE, FAIL, sides=(HOSTILE, long), first=finding, note=HOSTILE, worst=float("inf"), curve=CURVE),
        check(f"{long}/{long}", experiment=HOSTILE, tier=HOSTILE, sides=(HOSTILE, long), worst=float("nan")),
        check("odd/usual", worst=float("nan"), budget=float("inf"), derived=float("inf")),
        check(
            long, SHOWN, sides=(ORACLE, HOSTILE), note=HOSTILE, curve=((1, float("inf")), (2, float("nan")), (3, -1.0))
        ),
    )
    return Verdict(
        (Side(HOSTILE, {HOSTILE: HOSTILE, "long": long}), Side(long, {HOSTILE: ""})), checks, (HOSTILE, long)
    )


HOSTILE_MUTANT = Mutation(HOSTILE, HOSTILE, HOSTILE, False, True, HOSTILE, HOSTILE, float("inf"), float("nan"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("found", VERDICTS.values(), ids=VERDICTS)
def test_every_format_says_the_verdict_first(form: str, found: Verdict) -> None:
    word = "PASS" if found.holds else "FAIL" if found.failures else NOTHING
    assert overall(found) == word
    text = visible(form, found)
    assert word in text
    if form in {"markdown", "terminal"}:
        assert word in written(form, found).splitlines()[0]
    if form == "html":
        assert f"</span> {word}</h1>" in written(form, found)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("found", [ONLY_SHOWN, EMPTY_PASS, verdict(), Verdict((), ())])
def test_nothing_compared_is_never_a_pass(form: str, found: Verdict) -> None:
    text = visible(form, found)
    assert re.search(r"\bPASS\b|✓", text) is None
    assert NOTHING in text
    if form == "junit":
        assert int(ET.fromstring(report.junit(found)).get("failures", "0")) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_failures_say_all_that_is_needed(form: str) -> None:
    text = visible(form, FAILING)
    for failed in FAILING.failures:
        first = failed.first
        assert first is not None
        assert f"{first.update}" in text
        for part in (failed.case, failed.experiment, first.tensor, str(list(first.index)), first.nearer):
            assert part in text
        for value in (first.left, first.right, first.oracle, f"{first.error:.4g}", f"{first.budget:.4g}"):
            assert value in text
    assert "look at m" in text
    assert "FAIL" in text


@pytest.mark.parametrize("form", FORMATS)
def test_other_statuses_are_told(form: str) -> None:
    text = visible(form, THREE)
    for label in ("mine", "yours", "theirs", ORACLE):
        assert label in text
    assert "17" in text
    assert "flushed" in text
    assert ("SHOWN" if form == "junit" else "shown") in text
    if form != "junit":
        assert "mine ran another version" in text
    if form in {"html", "junit"}:  # the others count what passes, and do not list it
        assert "losses 2.311 and 2.309" in text


@pytest.mark.parametrize("form", FORMATS)
def test_a_failure_without_a_place_shows_its_note(form: str) -> None:
    found = verdict(check(status=FAIL, compared=0, differing=0, worst=0.0, note="no tensor was recorded"))
    assert "no tensor was recorded" in visible(form, found)


def test_junit_counts() -> None:
    found = verdict(*FAILING.checks, *ONLY_SHOWN.checks, *THREE.checks, labels=("mine", "yours", "theirs"))
    root = ET.fromstring(report.junit(found))
    assert int(root.get("tests", "")) == len(found.checks) == len(root.findall(".//testcase"))
    assert int(root.get("failures", "")) == len(found.failures) == len(root.findall(".//failure"))
    assert int(root.get("skipped", "")) == 2 == len(root.findall(".//skipped"))
    for key in ("tests", "failures", "skipped"):
        assert int(root.get(key, "")) == sum(int(suite.get(key, "")) for suite in root)
    names = [suite.get("name", "") for suite in root]
    assert len(set(names)) == len(names) == len({(c.sides, c.tier) for c in found.checks})
    facts = {p.get("name"): p.get("value") for p in root[0].findall("properties/property")}
    assert facts["mine: backend"] == "mine"
    assert facts["yours: python"] == "3.11.7"
    assert {case.get("classname") for case in root.iter("testcase")} >= {"fast.lockstep", "fast.free", "fast.closed"}


@pytest.mark.parametrize("found", [*VERDICTS.values(), hostile(), large()], ids=[*VERDICTS, "hostile", "large"])
def test_the_page_is_closed_and_complete(found: Verdict) -> None:
    text = report.html(found, MUTANTS)
    reader = Reader(text)
    assert len(text.encode()) < 3_000_000
    assert "script" not in reader.names
    assert ("meta", "http-equiv", "Content-Security-Policy") in reader.attributes
    assert any(key == "content" and value and "default-src 'none'" in value for _, key, value in reader.attributes)
    assert not re.search(r"https?:|url\(|@import|\ssrc=", text.replace(markup.escape(HOSTILE), ""))
    assert all(not key.startswith("on") for _, key, _ in reader.attributes)
    ids = [value for _, key, value in reader.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    links = {value for tag, key, value in reader.attributes if (tag, key) == ("a", "href")}
    assert links <= {f"#{name}" for name in ids}


def test_every_cell_leads_to_its_case() -> None:
    text = report.html(FAILING)
    cell = re.search(r'<a href="#([^"]*)">✗ FAIL 9.32 of 4.5</a>', text)
    assert cell is not None
    assert f'<tbody id="{cell[1]}"><tr><th scope="rowgroup" colspan="3"><b>adamw/usual</b>' in text


def test_hostile_strings_stay_text() -> None:
    found, mutants = hostile(), [HOSTILE_MUTANT]
    for form in FORMATS:
        text = written(form, found, mutants)
        text.encode()
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert form == "terminal" or "<script" not in text
    assert "script" not in Reader(report.html(found, mutants)).names
    assert "<script>alert(1)</script>" in visible("junit", found)
    assert "漢" in visible("html", found)
    for line in report.markdown(found, mutants).splitlines():
        if line.startswith("|"):  # cells stay cells
            assert "`x`" not in line
            assert re.search(r"@all|\s#1", line) is None
    tables = re.findall(r"(?:^\|.*\|\n?)+", report.markdown(found, mutants), flags=re.M)
    for table in tables:
        assert len({row.count("|") for row in table.strip().splitlines()}) == 1


def test_cleaned_changes_texts_alone() -> None:
    assert cleaned(FAILING) == FAILING
    assert cleaned("a\nb\x1b[0m") == "a b\ufffd[0m"


def test_markdown_fits_a_comment() -> None:
    failures = tuple(check(f"row{i}.{'v' * 60}/usual", FAIL, first=FOUND, note="n" * 200) for i in range(500))
    text = report.markdown(verdict(*failures), MUTANTS)
    assert len(text) < 65_536
    assert "450 more" in text
    assert "report.html" in text


def test_large_matrices_are_folded() -> None:
    text = report.markdown(large())
    assert text.count("<details>") == text.count("</details>") >= 1
    assert "<details>" not in report.markdown(PASSING)


def test_terminal_is_narrow_and_short() -> None:
    failures = tuple(check(f"row{i}/usual", FAIL, first=FOUND) for i in range(25))
    text = report.terminal(verdict(*failures), MUTANTS)
    assert "row9/usual" in text
    assert "row10/usual" not in text
    assert "and 15 more failures" in text
    for shown in (text, report.terminal(hostile(), [HOSTILE_MUTANT]), report.terminal(large())):
        assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("form", ["markdown", "html", "terminal"])
def test_mutations_are_told(form: str) -> None:
    text = visible(form, PASSING, MUTANTS)
    assert "1 of 2 wrong optimizers caught, 1 of 1 legitimate rewrites accepted" in text
    for word in ("accepted", "caught", "MISSED", "shrinks after the update", "adamw/usual, tall", "1,180"):
        assert word in text
    assert "caught," not in visible(form, PASSING)
    assert replace(MUTANTS[0], caught=True).outcome == "REJECTED"


def test_bits_and_budgets_are_told_apart() -> None:
    """In the exact tier nothing but bits counts, whatever budget float64 arithmetic leaves."""
    exact = check(tier="exact", budget=0.0, worst=0.0, differing=0)
    oracle = check(tier="exact", experiment="oracle", worst=50.0, budget=60.0, differing=0)
    assert "✓ 0 bits" in report.html(verdict(exact, oracle))
    failed = replace(exact, status=FAIL, differing=993, worst=2.0)
    assert "✗ FAIL 993 differ" in report.html(verdict(failed, oracle))
    assert "✗ FAIL 70 of 60" in report.html(verdict(exact, replace(oracle, status=FAIL, worst=70.0)))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.9, "1.9"), (13525.0, "13,525"), (2.1e6, "2.1e6"), (1e-7, "1e-7"), (float("inf"), "∞")],
)
def test_units(value: float, text: str) -> None:
    assert units(value) == text


def test_write(tmp_path: Path) -> None:
    paths = report.write(FAILING, tmp_path / "new" / "report", MUTANTS)
    assert [path.name for path in paths] == ["report.md", "report.xml", "report.html"]
    assert paths[0].read_text(encoding="utf-8") == report.markdown(FAILING, MUTANTS)
    assert ET.parse(paths[1]).getroot().tag == "testsuites"
    assert paths[2].read_text(encoding="utf-8") == report.html(FAILING, MUTANTS)
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)  # no temporary file is left


MEASURE = """<!doctype html><meta charset="utf-8"><body style="margin:0"><pre id="found"></pre>
<iframe style="border:0;width:{width}px;height:2000px" srcdoc="{page}"></iframe><script>
onload = () => {{
  const inner = document.querySelector("iframe").contentDocument;
  document.getElementById("found").textContent = JSON.stringify({{
    width: inner.documentElement.scrollWidth,
    title: inner.querySelector("h1").innerText,
    text: inner.body.innerText.slice(0, 4000),
    policy: inner.querySelectorAll("style").length && getComputedStyle(inner.querySelector("header")).borderRadius,
  }});
}};
</script>"""


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize(
    "name", ["failing", *(pytest.param(n, marks=pytest.mark.long) for n in ("three", "only shown", "large", "hostile"))]
)
def test_in_a_browser(tmp_path: Path, width: int, name: str) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    found = {**VERDICTS, "large": large(60), "hostile": hostile()}[name]
    page = report.html(found, MUTANTS)
    wrapper = tmp_path / "wrapper.html"  # a window has a least width, a frame has none
    wrapper.write_text(MEASURE.format(width=width, page=markup.escape(page)), encoding="utf-8")
    ended = subprocess.run(
        [
            browser,
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={max(width, 800)},2000",
            f"--screenshot={tmp_path / 'page.png'}",
            "--dump-dom",
            wrapper.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = re.search(r'<pre id="found">(.*?)</pre>', ended.stdout, flags=re.S)
    assert told is not None, ended.stderr[-2000:]
    seen = json.loads(markup.unescape(told[1]))
    assert seen["width"] <= width
    assert seen["title"].split(maxsplit=1)[1] == overall(found)
    assert "dualopt conformance" in seen["text"]
    assert seen["policy"] == "10px"  # the style is in force
    assert "CONSOLE" not in ended.stderr
    assert (tmp_path / "page.png").stat().st_size > 10_000
