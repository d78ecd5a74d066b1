"""What the documentation shows is what happens: every block of every page is run for real, with the output it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs_pages import ROOT, pages

RUNNER = Path(__file__).parents[1] / "docs_runner.py"
RUN = frozenset({"python", "console", "sh"})
PAGES = [page.name for page in pages() if any(block.language in RUN for block in page.blocks())]


def run(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(RUNNER), name, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_shows(name: str, tmp_path: Path) -> None:
    done = run(name, tmp_path)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


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
    done = run(str(page), tmp_path / "folder")
    assert done.returncode == 1
    assert says in done.stdout, done.stdout
