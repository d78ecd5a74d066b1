"""Write the generated parts of the documentation anew.

    python scripts/make_docs.py           write them
    python scripts/make_docs.py --check   say which pages are out of step, and exit with 1

A page marks such a part with `<!-- made: NAME -->` and `<!-- end -->`; what stands between is replaced. Names are
`fields MODEL`, `commands`, `exit codes`, `reference`, `figures`, `functions`, `metrics`, `capacity`, `capacity limits`
and `capacity inputs`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import capacity
from docs_commands import exit_codes, overview, reference
from docs_fields import documented, field_table

from tightship.insight.exposition import METRICS
from tightship.workflow.conditions import FUNCTIONS
from tightship.workflow.readiness import rules_page

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "benchmarks" / "results" / "latest.json"
_PART = re.compile(r"(<!-- made: (?P<name>[^>]+?) -->\n).*?(\n?<!-- end -->)", re.DOTALL)


def makers() -> Mapping[str, Callable[[], str]]:
    """What can be made, by the name that a page asks for."""
    tables = {f"fields {name}": lambda model=model: field_table(model) for name, model in documented().items()}
    return {
        **tables,
        "commands": overview,
        "exit codes": exit_codes,
        "reference": reference,
        "figures": figures,
        "metrics": metrics,
        "capacity": capacity.table,
        "capacity limits": capacity.breaks,
        "capacity inputs": capacity.sources,
        "functions": lambda: ", ".join(f"`{name}`" for name in sorted(FUNCTIONS)),
    }


def metrics() -> str:
    """The table of what `tightship metrics` prints."""
    lines = ["| metric | type | meaning |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{one.name}` | {one.type} | {one.help} |" for one in METRICS)])


def figures() -> str:
    """What the benchmark has measured, as a section of its own; nothing before it has been run."""
    if not FIGURES.exists():
        return ""
    rows: list[dict[str, Any]] = json.loads(FIGURES.read_text())
    peers = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    head = ["figure", "unit", "Tightship", *peers, "target", "met"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(peers) + 2) + "---|"]
    for row in rows:
        if row["ours"] is None:  # a limit of the machine; `make bench` prints it beside the others
            continue
        found = [row["ours"], *(row["peers"].get(name) for name in peers), row["target"]]
        met = {True: "yes", False: "no"}.get(row["met"], "")
        cells = " | ".join(_figure(value) for value in found)
        lines.append(f"| `{row['figure']}` | {row['unit']} | {cells} | {met} |")
    said = "Measured by `make bench`, all in one call on one machine, with its targets, met or not."
    more = "`benchmarks/README.md` says what is equal and what is not."
    return "\n".join(["## Figures", "", f"{said} {more}", "", *lines])


def _figure(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def pages() -> list[Path]:
    """The pages that may hold such parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def made(text: str) -> str:
    """The page's text with its generated parts made anew.

    Raises:
        KeyError: a part has a name that nothing makes.
    """
    known = makers()
    return _PART.sub(lambda found: f"{found[1]}{_line(known[found['name']]())}<!-- end -->", text)


def _line(text: str) -> str:
    return f"{text}\n" if text else ""


def parts(text: str) -> list[str]:
    """The names of the page's generated parts."""
    return [found["name"] for found in _PART.finditer(text)]


def changed() -> Iterator[tuple[Path, str]]:
    """Pages that are out of step, with their text as it should be."""
    for page in pages():
        now = page.read_text()
        should = rules_page() if page.name == "readiness.md" else made(now)
        if now != should:
            yield page, should


def main(arguments: list[str]) -> int:
    """Write, or check; returns the exit code."""
    found = list(changed())
    for page, text in found:
        print(page.relative_to(ROOT))
        if "--check" not in arguments:
            page.write_text(text)
    return 1 if found and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
