"""A workspace's modules are its own, whatever another workspace or an installed package is called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tightship.core.errors import LoadError
from tightship.runtime.code import Code
from tightship.workflow.build import Agent


def workspace(root: Path, **modules: str) -> Code:
    (root / "agents").mkdir(parents=True)
    for name, text in modules.items():
        (root / "agents" / f"{name}.py").write_text(text, "utf-8")
    return Code(root)


def agent(python: str) -> Agent:
    return Agent("helper", owner="o", purpose="p", python=python)


def test_two_workspaces_with_modules_of_one_name_do_not_meet(tmp_path: Path) -> None:
    text = "from words import WORD\ndef speak(ctx, given):\n    return WORD\n"
    first = workspace(tmp_path / "a", desk=text, words="WORD = 'first'\n")
    second = workspace(tmp_path / "b", desk=text, words="WORD = 'second'\n")
    said = [code.function(agent("desk:speak"))[0](None, {}) for code in (first, second)]
    assert said == ["first", "second"]
    assert "words" not in sys.modules


def test_a_module_is_imported_once_and_dataclasses_find_it(tmp_path: Path) -> None:
    head = "from __future__ import annotations\nimport dataclasses\n"
    shared = f"{head}@dataclasses.dataclass\nclass Box:\n    n: int = 0\nBOX = Box()\n"
    code = workspace(
        tmp_path,
        shared=shared,
        left="import shared\ndef go(ctx, given):\n    shared.BOX.n += 1\n    return shared.BOX.n\n",
        right="from .shared import BOX\ndef go(ctx, given):\n    return BOX.n\n",
    )
    assert code.function(agent("left:go"))[0](None, {}) == 1
    assert code.function(agent("right:go"))[0](None, {}) == 1


def test_a_module_named_like_an_installed_package_shadows_it_for_nobody_else(tmp_path: Path) -> None:
    code = workspace(
        tmp_path, json="def dumps(ctx, given):\n    return 'mine'\n", desk="import json\nuse = json.dumps\n"
    )
    assert code.function(agent("desk:use"))[0](None, {}) == "mine"
    import json

    assert json.dumps({}) == "{}"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [("import os\nraise ValueError('no')\n", 2, "ValueError: no"), ("def go(:\n", 1, "SyntaxError")],
)
def test_an_import_that_fails_names_file_and_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    code = workspace(tmp_path, desk=text)
    with pytest.raises(LoadError, match=said) as caught:
        code.function(agent("desk:go"))
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "agents" / "desk.py"), line)


def test_a_function_that_is_not_there_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="has no function 'go'"):
        workspace(tmp_path, desk="x = 1\n").function(agent("desk:go"))
