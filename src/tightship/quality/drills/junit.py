"""Verdicts as JUnit XML, as continuous integration reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree

from tightship.quality.drills.registry import Verdict

_CHARACTER: Final = re.compile("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 calls a character."""


def junit(verdicts: Sequence[Verdict]) -> bytes:
    """One test suite: a case for each drill; what does not apply is skipped, what did not hold is a failure."""
    workflow = verdicts[0].workflow if verdicts else ""
    suite = ElementTree.Element(
        "testsuite",
        name=f"tightship.drill.{workflow}",
        tests=str(len(verdicts)),
        failures=str(sum(one.state == "did not hold" for one in verdicts)),
        skipped=str(sum(one.state == "does not apply" for one in verdicts)),
        errors="0",
        time=f"{sum(one.seconds for one in verdicts):.3f}",
    )
    for one in verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"drill.{workflow}", name=one.drill, time=f"{one.seconds:.3f}"
        )
        if one.state == "does not apply":
            ElementTree.SubElement(case, "skipped", message=_text(one.why))
        elif one.state == "did not hold":
            failure = ElementTree.SubElement(case, "failure", message=_text(one.problems[0]), type="did not hold")
            failure.text = _text("\n".join([one.broken, *one.problems, f"fix: {one.fix}", *one.evidence]))
        else:
            ElementTree.SubElement(case, "system-out").text = _text("\n".join([*one.held, *one.evidence]))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _text(text: str) -> str:
    """Text that XML 1.0 may hold."""
    return "".join(one if _CHARACTER.fullmatch(one) else "\ufffd" for one in text)
