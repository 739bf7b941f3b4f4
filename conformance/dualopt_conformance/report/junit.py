"""The report as JUnit XML, for what displays the results of continuous integration."""

from __future__ import annotations

from collections import defaultdict
from xml.etree import ElementTree as ET

from ..verdict import FAIL, SHOWN, Check, Verdict
from .words import NOTHING, cleaned, counts, derived, differing, measure, status, units, versus, word


def junit(verdict: Verdict) -> str:
    """A suite for every pair and tier, a test for every check.

    What is only shown, or had nothing to compare, is skipped. A verdict without anything compared has a failing test
    of its own, because a display takes a file without failures for a success.
    """
    verdict = cleaned(verdict)
    found: dict[tuple[tuple[str, str], str], list[Check]] = defaultdict(list)
    for check in verdict.checks:
        found[check.sides, check.tier].append(check)
    suites = [_suite(verdict, pair, tier, checks) for (pair, tier), checks in found.items()]
    if not verdict.holds and not verdict.failures:
        suites.append(_nothing(verdict))
    root = ET.Element("testsuites", name=f"dualopt conformance: {counts(verdict)}")
    root.extend(suites)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in suites)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(verdict: Verdict, pair: tuple[str, str], tier: str, checks: list[Check]) -> ET.Element:
    suite = ET.Element("testsuite", name=f"{versus(pair)}, {tier}")
    facts = [(f"{s.label}: {k}", v) for s in verdict.sides if s.label in pair for k, v in s.facts.items()]
    if facts:
        properties = ET.SubElement(suite, "properties")
        for name, value in facts:
            ET.SubElement(properties, "property", name=name, value=value)
    for check in checks:
        suite.append(_case(check))
    return _counted(suite)


def _case(check: Check) -> ET.Element:
    case = ET.Element("testcase", classname=f"{check.tier}.{check.experiment}", name=check.case)
    if check.status == FAIL:
        said = str(check.first) if check.first else check.note or measure([check])
        failure = ET.SubElement(case, "failure", type=word(check), message=said)
        failure.text = f"{said}\n{_found(check)}"
    elif status(check) == "nothing":
        ET.SubElement(case, "skipped", message=NOTHING.lower())
    elif check.status == SHOWN:
        ET.SubElement(case, "skipped", message=check.note or f"only shown: {measure([check])}")
    ET.SubElement(case, "system-out").text = f"{word(check)}: {_found(check)}"
    return case


def _found(check: Check) -> str:
    lines = [
        f"{versus(check.sides)}: {differing(check)}",
        f"largest E {units(check.worst)}, budget {units(check.budget)}, derived bound {derived(check)}",
        f"flushed {check.flushed:,}, ties {check.ties:,}",
    ]
    return "\n".join([*lines, check.note] if check.note else lines)


def _nothing(verdict: Verdict) -> ET.Element:
    suite = ET.Element("testsuite", name="verdict")
    case = ET.SubElement(suite, "testcase", classname="verdict", name="something was compared")
    ET.SubElement(case, "failure", type=NOTHING, message=f"{NOTHING}: {counts(verdict)}")
    return _counted(suite)


def _counted(suite: ET.Element) -> ET.Element:
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", "0")
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    return suite
