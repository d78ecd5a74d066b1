"""What the documentation shows is what happens: every block of every page is run for real, with the output it shows."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from cli_desk import environment
from cli_warm import warm
from docs_pages import ROOT, pages

RUNNER = Path(__file__).parents[1] / "docs_runner.py"
RUN = frozenset({"python", "console", "sh"})
PAGES = [page.name for page in pages() if any(block.language in RUN for block in page.blocks())]


ANEW = {"README.md", "docs/tutorial.md"}
"""Pages of which every command is started anew, with nothing loaded, as a reader's are."""
FORKED = (
    "import warnings; warnings.simplefilter('error'); import docs_runner; sys.exit(docs_runner.main(*sys.argv[1:]))"
)


def run(name: str, folder: Path) -> tuple[int, str]:
    """The exit code of a page's run, and what it said."""
    if name in ANEW:
        command = [sys.executable, "-W", "error", str(RUNNER), name, str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False)
        return done.returncode, done.stdout + done.stderr
    code = f"import sys; sys.path.insert(0, {str(RUNNER.parent)!r}); {FORKED}"
    given = {**environment(), "TIGHTSHIP_WARM": str(warm().path)}
    with contextlib.closing(warm().start((name, str(folder)), ROOT, given, code=code)) as page:
        said = "".join(page.communicate(1500))
        return page.wait(), said


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_shows(name: str, tmp_path: Path) -> None:
    code, said = run(name, tmp_path)
    assert code == 0, said


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("```console\n$ tightship agents list\nnobody\n```\n", "shown:\nnobody"),
        ("```console\n$ tightship agents calibration nobody\n```\n", "exit code 1"),
        ("```python\nfrom tightship import Workspace\nassert Workspace is None\n```\n", "assert Workspace is None"),
    ],
)
def test_a_page_that_shows_something_else_is_found_out(block: str, says: str, tmp_path: Path) -> None:
    page = tmp_path / "wrong.md"
    page.write_text(f"# Wrong\n\n{block}")
    code, said = run(str(page), tmp_path / "folder")
    assert code == 1 and says in said, said
