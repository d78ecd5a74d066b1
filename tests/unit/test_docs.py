"""The documentation says what the code does: nothing is missing, nothing is out of step, nothing is broken."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import click
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import docs_commands
import docs_fields
import docs_words
import make_docs

import tightship
from docs_pages import LANGUAGES, ROOT, Block, Page, commands, fits, page, pages, shell_lines
from tightship.agents.context import AgentContext
from tightship.cli._root import root
from tightship.connectors._operation import _EXTENSIONS
from tightship.connectors.openapi import OpenApiConnector
from tightship.connectors.python import load_tools
from tightship.core import errors, kinds, signals
from tightship.core.errors import TightshipError
from tightship.core.ports import ToolSpec
from tightship.core.signals import Signal
from tightship.patterns import load_all
from tightship.review.inbox import allowed_decisions
from tightship.runtime.result import Run
from tightship.runtime.workspace import Workspace
from tightship.workflow.config import WorkspaceConfig
from tightship.workflow.loader import load_workspace
from tightship.workflow.models import LimitOverrides, Limits
from tightship.workflow.readiness import all_rules, check_workspace
from tightship.workflow.source import parse_source
from tightship.workflow.tree import KINDS, patterns

load_all()
PAGES = {one.name: one for one in pages()}
BLOCKS = [block for one in PAGES.values() for block in one.blocks()]
TEMPLATE = Path(tightship.__file__).parent / "templates" / "support"


def named(blocks: list[Block]) -> Any:
    return pytest.mark.parametrize("block", blocks, ids=[block.where for block in blocks])


# --- generated parts ------------------------------------------------------------------------------


def test_the_generated_parts_are_what_the_code_says() -> None:
    found = [path.name for path, _ in make_docs.changed()]
    assert found == [], "run `python scripts/make_docs.py`"


def test_every_table_of_fields_stands_on_one_page() -> None:
    shown = [name for one in PAGES.values() for name in make_docs.parts(one.text) if name.startswith("fields ")]
    assert sorted(shown) == sorted(f"fields {name}" for name in docs_fields.documented())


def test_no_words_are_kept_for_fields_that_are_gone() -> None:
    known = {
        f"{name}.{one}" for name, model in docs_fields.documented().items() for one in docs_fields.own_fields(model)
    }
    assert sorted(docs_words.MEANINGS) == sorted(known)


def test_models_that_share_a_table_have_the_same_fields() -> None:
    assert set(LimitOverrides.model_fields) == set(Limits.model_fields)
    from tightship.connectors import settings as connectors
    from tightship.workflow import config

    for name in ("Overlay",):
        assert set(getattr(config, name).model_fields) == set(getattr(connectors, name).model_fields)


# --- nothing is missing ----------------------------------------------------------------------------


def rows(text: str) -> dict[str, list[str]]:
    """Rows of tables by what stands in back-ticks in their first cell."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found[cells[0].strip("`")] = cells[1:]
    return found


def classes(module: Any, base: type) -> list[type]:
    return [one for _, one in inspect.getmembers(module, inspect.isclass) if issubclass(one, base)]


@pytest.mark.parametrize("error", [*classes(errors, TightshipError), *classes(signals, Signal)])
def test_every_error_is_explained_with_its_message(error: type) -> None:
    row = rows(page("docs/errors.md").text).get(error.__name__)
    assert row is not None, f"docs/errors.md says nothing of {error.__name__}"
    message = inspect.cleandoc(error.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    assert row[0] == message
    assert row[1] and row[2], "when it comes, and what to do"


def test_no_error_is_explained_that_is_not_there() -> None:
    known = {one.__name__ for one in [*classes(errors, TightshipError), *classes(signals, Signal)]}
    assert {name for name in rows(page("docs/errors.md").text) if name[0].isupper()} <= known


def entry_kinds() -> list[str]:
    return [value for name, value in vars(kinds).items() if name.isupper() and isinstance(value, str)]


@pytest.mark.parametrize("kind", entry_kinds())
def test_every_kind_of_entry_is_explained(kind: str) -> None:
    assert kind in rows(page("docs/ledger.md").text)


@pytest.mark.parametrize("word", patterns.words())
def test_every_pattern_has_a_section_and_an_example(word: str) -> None:
    text = page("docs/workflows.md").text
    section = text.partition(f"\n### {word}\n")[2].partition("\n### ")[0]
    assert f"{word}:" in section or word == "agent"
    assert "```yaml" in section


def test_every_rule_is_listed() -> None:
    text = page("docs/readiness.md").text
    assert [rule.id for rule in all_rules() if f"| {rule.id} |" not in text] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_exception_is_explained(kind: str) -> None:
    assert kind in rows(page("docs/exceptions.md").text)


READ_FROM_A_LEDGER = frozenset({"of", "many"})
"""How the package itself makes a Run."""


def public(owner: type) -> list[str]:
    return [name for name in vars(owner) if not name.startswith("_") and name not in READ_FROM_A_LEDGER]


@pytest.mark.parametrize(
    ("owner", "where", "prefix"),
    [(AgentContext, "docs/agents.md", "ctx."), (Workspace, "docs/python.md", "ws."), (Run, "docs/python.md", "run.")],
)
def test_every_public_method_and_attribute_is_explained(owner: type, where: str, prefix: str) -> None:
    inner = {"perform", "turn", "next_key"}  # the package's own, for other packages
    said = {span.partition("(")[0].removeprefix("await ").removeprefix("async with ") for span in page(where).spans()}
    own = f"{owner.__name__}."  # what is called on the class itself
    missing = [name for name in public(owner) if not {prefix + name, own + name} & said and name not in inner]
    assert missing == []


def test_every_public_name_of_the_package_is_explained() -> None:
    said = {span.partition("(")[0] for span in page("docs/python.md").spans()}
    assert [name for name in tightship.__all__ if name not in said and name != "__version__"] == []


def test_every_field_of_a_tool_contract_is_explained() -> None:
    found = rows(page("docs/agents.md").text)
    assert [name for name in inspect.signature(tightship.tool).parameters if name not in found] == []
    assert set(inspect.signature(tightship.tool).parameters) - {"description", "local"} <= set(
        ToolSpec.__dataclass_fields__
    )


@pytest.mark.parametrize("extension", _EXTENSIONS)
def test_every_vendor_extension_is_explained(extension: str) -> None:
    assert f"`{extension}`" in page("docs/connectors.md").text


@pytest.mark.parametrize("type_", ["review", "budget", "question", "escalation", "residual", "drift"])
def test_every_type_of_inbox_item_is_listed_with_its_decisions(type_: str) -> None:
    row = rows(page("docs/operations.md").text)[type_]
    for decision in allowed_decisions(type_):
        assert f"`{decision}`" in row[-1]


def test_every_environment_variable_is_explained() -> None:
    sources = (Path(tightship.__file__).parent).rglob("*.py")
    found = {name for path in sources for name in re.findall(r'"(TIGHTSHIP_[A-Z_]+)"', path.read_text())}
    assert found
    assert [name for name in found if f"`{name}`" not in page("docs/operations.md").text] == []


# --- links and languages -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    one = PAGES[name]
    for link in one.links():
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (one.path.parent / path).resolve() if path else one.path
        assert target.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in Page(target, target.read_text()).anchors(), f"{name}: {link}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = set[str](), {"README.md"}
    while new:
        reached |= new
        linked = {
            (PAGES[name].path.parent / link.partition("#")[0]).resolve() for name in new for link in PAGES[name].links()
        }
        new = {name for name, one in PAGES.items() if one.path.resolve() in linked} - reached
    assert sorted(set(PAGES) - reached) == []


@named(BLOCKS)
def test_every_block_says_its_language(block: Block) -> None:
    assert block.language in LANGUAGES
    assert set(block.marks) <= {"file", "exit", "background", "stop", "parse"}


def test_every_json_block_is_json() -> None:
    for block in BLOCKS:
        if block.language == "json":
            json.loads(block.text)


@named([block for block in BLOCKS if block.language == "python"])
def test_every_python_block_compiles(block: Block) -> None:
    import ast

    compile(block.text, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_python_is_a_script_unless_its_page_says_how_to_paste_it() -> None:
    def script(block: Block) -> bool:
        try:
            compile(block.text, block.where, "exec")
        except SyntaxError:
            return False
        return True

    for name, one in PAGES.items():
        blocks = [block for block in one.blocks() if block.language == "python"]
        no_scripts = [block.where for block in blocks if not script(block)]
        assert not no_scripts or ("python -m asyncio" in one.text and script(blocks[0])), (name, no_scripts)


# --- YAML ------------------------------------------------------------------------------------------------


WITH_YAML = [name for name, one in PAGES.items() if any(block.language == "yaml" for block in one.blocks())]


def workspace_of(name: str, folder: Path) -> dict[str, str]:
    """Write the agents, workflows and code of a page into one workspace; returns where each file stands on the page.

    The workspace is that of the support template, unless the page begins with an empty folder.
    """
    if "empty" in PAGES[name].marks:
        for part in ("workflows", "agents"):
            (folder / part).mkdir(parents=True)
        (folder / "tightship.yaml").write_text("name: page\n")
    else:
        shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    written: dict[str, str] = {}
    for number, block in enumerate(PAGES[name].blocks()):
        if block.language == "yaml":
            path = _place(block, folder, number)
            written[path.relative_to(folder).as_posix()] = block.where
        elif "file" in block.marks:
            path = folder / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    return written


@pytest.mark.parametrize("name", WITH_YAML)
def test_every_yaml_block_loads_as_what_it_is(name: str, tmp_path: Path) -> None:
    written = workspace_of(name, tmp_path / "workspace")
    problems = load_workspace(tmp_path / "workspace").problems
    assert [(written.get(one.file or "", one.file), str(one)) for one in problems] == []


@pytest.mark.parametrize("name", WITH_YAML)
def test_the_readiness_check_finds_no_error_in_an_example(name: str, tmp_path: Path) -> None:
    """Steps alone, which are no whole workflow, are left out."""
    written = workspace_of(name, tmp_path / "workspace")
    contract = Path(tightship.__file__).parent / "company" / "openapi.json"
    company = OpenApiConnector("company", contract.read_bytes(), "http://127.0.0.1:1")
    tools = {one: company.spec(one) for one in company.tools()}
    tools |= {one: made.spec for one, made in load_tools(tmp_path / "workspace" / "tools").items()}
    found = check_workspace(load_workspace(tmp_path / "workspace"), tools)
    own = [one for one in found if one.severity == "error" and one.file in written and "/steps-" not in one.file]
    if name in ("docs/settings.md", "docs/connectors.md"):
        own = [one for one in own if one.rule not in ("TS312", "TS304")]  # contracts that are not there
    assert [(written[one.file or ""], str(one)) for one in own] == []


def _place(block: Block, folder: Path, number: int) -> Path:
    """Write the block as the file that it is; a list of steps becomes a workflow, settings take the place of theirs."""
    raw = parse_source(block.text, block.where)
    if isinstance(raw, list):
        head = f"workflow: steps-{number}\nowner: o\npurpose: p\ninput: {{ticket: str}}\nsteps:\n"
        path, text = folder / "workflows" / f"steps-{number}.yaml", head + block.text
    elif "workflow" in raw and "steps" in raw:
        path, text = folder / "workflows" / f"{raw['workflow']}.yaml", block.text
    elif "agent" in raw:
        path, text = folder / "agents" / f"{raw['agent']}.yaml", block.text
    else:
        assert set(raw) <= set(WorkspaceConfig.model_fields), f"{block.where}: neither workflow nor agent nor settings"
        path = folder / "tightship.yaml"
        text = _with_settings(path.read_text(), block.text, set(raw))
    path.write_text(text)
    return path


def _with_settings(text: str, new: str, words: set[str]) -> str:
    """A tightship.yaml with some of its top-level settings replaced."""
    kept, skipping = list[str](), False
    for line in text.splitlines():
        word = re.match(r"([a-z]+):", line)
        if word:
            skipping = word[1] in words
        if not skipping:
            kept.append(line)
    return "\n".join([*kept, new])


# --- commands --------------------------------------------------------------------------------------------


def parse(line: str) -> None:
    """Parse a `tightship …` command line with the command line's own parser; nothing is run.

    Raises:
        click.ClickException: it is called wrongly.
    """
    words = shlex.split(re.split(r" [|>&]", line, maxsplit=1)[0], comments=True)[1:]
    command, context = root, click.Context(root, info_name="tightship")
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no such command {name!r}")
        command, context = found, click.Context(found, parent=context, info_name=name)
    if "--help" not in words:
        command.make_context(command.name, list(words), parent=context.parent)


@named([block for block in BLOCKS if block.language in ("console", "sh")])
def test_every_command_of_a_block_can_be_parsed(block: Block) -> None:
    for line in shell_lines(block):
        if line.startswith("tightship "):
            parse(line)


@pytest.mark.parametrize("name", PAGES)
def test_every_command_in_the_prose_is_there(name: str) -> None:
    options = {name: {opt for one in command.params for opt in one.opts} for name, command in docs_commands.commands()}
    groups = {name.rpartition(" ")[0] for name in options if name.count(" ") == 2}
    for span in PAGES[name].spans():
        if not re.match(r"tightship [a-z]", span):
            continue
        words = span.split()
        known = [one for one in (" ".join(words[:3]), " ".join(words[:2])) if one in options or one in groups]
        assert known, f"{name}: {span}"
        for word in words:
            if word.startswith("--") and known[0] in options:
                assert word.partition("=")[0] in options[known[0]] | {"--help"}, f"{name}: {span}"


def test_every_make_target_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [one.text for one in PAGES.values()] + [(ROOT / "CONTRIBUTING.md").read_text()]
    named = {word for text in texts for word in re.findall(r"(?:`|\$ | {4})make ([a-z-]+)", text)}
    assert {"demo", "test"} <= named <= targets


def test_every_option_of_every_command_is_listed() -> None:
    text = page("docs/commands.md").text
    for name, command in docs_commands.commands():
        section = text.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        assert section, name
        for one in command.params:
            if isinstance(one, click.Option) and one.name not in docs_commands.COMMON:
                assert all(f"`{opt}`" in section for opt in one.opts), (name, one.opts)


# --- the tests themselves ----------------------------------------------------------------------------------


def test_output_is_compared_line_by_line_and_an_ellipsis_stands_for_what_changes() -> None:
    assert fits(("one", "two"), "one\ntwo\n") is None
    assert fits(("one", "two"), "one\nthree\n") is not None
    assert fits(("one",), "one\ntwo\n") is not None
    assert fits(("r-… done in … ms",), "r-17 done in 4 ms\n") is None
    assert fits(("one", "…", "four"), "one\ntwo\nthree\nfour\n") is None
    assert fits(("one", "…"), "one\n") is None


def test_a_console_block_gives_its_commands_with_their_output() -> None:
    block = Block("p", 1, "console", "$ a \\\n  b\nx\n\n$ c\n")
    assert [(one.line, one.text, one.output) for one in commands(block)] == [(2, "a \\\n  b", ("x", "")), (6, "c", ())]


def test_a_wrong_command_is_refused() -> None:
    for line in ("tightship nothing", "tightship run", "tightship runs list --stale", "tightship inbox approve"):
        with pytest.raises(click.ClickException):
            parse(line)
