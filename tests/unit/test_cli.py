"""The command line in this process: help, exit codes, errors, what it prints, what it loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

import tightship
from cli_desk import make
from tightship.cli import EXIT_CODES, main
from tightship.cli._root import COMMANDS, LazyGroup, root
from tightship.cli._shell import Shell, as_error, clean, dumps, fail
from tightship.cli._work import Record
from tightship.core.errors import ExecutorBusy, InputRejected, TightshipError
from tightship.core.signals import Halted


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make(tmp_path / "shop"))
    return tmp_path / "shop"


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some code."""
    shown = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, timeout=300, check=True)
    return set(done.stdout.split())


def walk(group: click.Group, path: str = "") -> list[tuple[str, click.Command]]:
    """Every command with its path."""
    found: list[tuple[str, click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += walk(command, f"{path}{name} ")
        else:
            found.append((f"{path}{name}", command))
    return found


# --- loading ------------------------------------------------------------------------------------------


def test_help_loads_no_command_and_no_runtime() -> None:
    loaded = modules_after("from tightship.cli import main\nmain(['--help'])")
    assert not {name for name in loaded if name.startswith("tightship.cli.")} - {
        "tightship.cli._exit",
        "tightship.cli._root",
    }
    assert not loaded & {"pydantic", "rich", "cryptography", "sqlite3", "tightship.runtime", "tightship.workflow"}


def test_help_of_a_group_loads_no_runtime() -> None:
    for name in COMMANDS:
        loaded = modules_after(f"from tightship.cli import main\nmain(['{name}', '--help'])")
        assert not loaded & {"pydantic", "rich", "cryptography", "tightship.runtime"}, name


def test_importing_the_package_loads_next_to_nothing() -> None:
    loaded = {name for name in modules_after("import tightship") if name.startswith("tightship")}
    assert loaded == {"tightship", "tightship._version"}


def test_every_public_name_is_there_when_it_is_used() -> None:
    for name in tightship.__all__:
        assert getattr(tightship, name) is not None
    assert set(tightship._HOME) | {"__version__"} == set(tightship.__all__)
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = tightship.nothing_of_that_name


def test_builders_work_without_opening_a_workspace() -> None:
    code = "import tightship\nw = tightship.Workflow('w', owner='o', purpose='p', input={}, steps=['a'])\nprint(w.name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "w\n", done.stderr


# --- every command ------------------------------------------------------------------------------------


def test_every_command_of_the_table_is_there_and_has_the_common_options() -> None:
    assert isinstance(root, LazyGroup)
    found = walk(root)
    assert {path.split()[0] for path, _ in found} == set(COMMANDS)
    for path, command in found:
        names = {option for parameter in command.params for option in parameter.opts}
        assert {"--workspace", "-w", "--json", "--debug"} <= names, path
        assert command.help, path


def test_help_shows_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", out, re.MULTILINE)
    for code in EXIT_CODES:
        assert re.search(rf"^  {code} ", out, re.MULTILINE)


@pytest.mark.parametrize(
    "args", [["nonsense"], ["runs", "nonsense"], ["run"], ["run", "pay"], ["halt"], ["check", "--x"]]
)
def test_a_wrong_call_exits_with_2(desk: Path, capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    assert main(args) == 2
    assert "Error: " in capsys.readouterr().err
    assert main([*args, "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"] == "UsageError"


# --- how errors are told ------------------------------------------------------------------------------


def test_an_error_says_what_where_and_how_to_mend_it(capsys: pytest.CaptureFixture[str]) -> None:
    error = InputRejected("it is wrong", where="file.yaml:3", fix="mend it")
    assert fail(Shell(Path()), error) == 1
    assert capsys.readouterr().err == "error: it is wrong\n  where: file.yaml:3\n  fix:   mend it\n"
    assert fail(Shell(Path(), json=True), error) == 1
    told = json.loads(capsys.readouterr().err)
    assert told == {"error": "InputRejected", "message": "it is wrong", "where": "file.yaml:3", "fix": "mend it"}


def test_another_executor_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(Shell(Path()), ExecutorBusy("process 12 executes")) == 4
    assert "process 12" in capsys.readouterr().err


def test_a_halt_names_its_scope_and_the_way_out() -> None:
    told = as_error(Halted("workflow:pay is halted by ann", scope="workflow:pay"))
    assert told["message"] == "workflow:pay is halted by ann"
    assert "tightship unhalt workflow:pay" in told["fix"]


def test_a_defect_of_ours_is_named_with_its_place_and_debug_shows_the_traceback(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("tightship.cli.check.run_async", broken)
    assert main(["check"]) == 1
    told = capsys.readouterr().err
    assert "a defect in Tightship: ZeroDivisionError: oh" in told
    assert "test_cli.py" in told
    assert "Traceback" not in told
    assert main(["check", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(desk: Path) -> None:
    shown = f"{sys.executable} -m tightship check --rules --json | head -c 10"
    done = subprocess.run(shown, shell=True, capture_output=True, text=True, timeout=300, check=False, cwd=desk)
    assert done.stderr == ""


# --- what reaches a terminal --------------------------------------------------------------------------


def test_what_agents_and_customers_write_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "ok\x1b[2J\x1b]0;title\x07 \u202etxt.exe \x9b31m\r"
    for shell in (Shell(Path()), Shell(Path(), prefix="[rehearsal] ")):
        shell.say(hostile)
        shell.table(("a",), [(hostile,)])
        shell.note(hostile)
    told = "".join(capsys.readouterr())
    assert not set(told) & set("\x1b\x07\x9b\r\u202e")
    assert clean("plain\ttext\nand more") == "plain\ttext\nand more"


def test_tables_do_not_read_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Shell(Path()).table(("source", "said"), [("[KB-10]", "[bold]loud[/bold] :smile:")])
    out = capsys.readouterr().out
    assert "[KB-10]" in out
    assert "[bold]loud[/bold] :smile:" in out


def test_json_takes_objects_as_they_describe_themselves() -> None:
    told = json.loads(dumps([Record(1, "b/1", "r-1", "completed", usd=2_500_000_000)]))
    assert told[0]["cost"] == 2.5
    assert "usd" not in told[0]


def test_json_mode_prints_one_document_and_no_text(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = json.dumps({"order": "O-1", "amount": 1.0})
    for args in (
        ["check"],
        ["agents", "list"],
        ["blueprint", "pay"],
        ["run", "pay", "--data", order],
        ["runs", "list"],
    ):
        assert main([*args, "--json"]) == 0, args
        told = capsys.readouterr()
        json.loads(told.out)
        assert told.err == "", args


def test_what_is_wrong_and_how_to_mend_it_do_not_run_into_each_other(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "in.jsonl").write_text('{"order": 7, "amount": 1.0}\n')
    assert main(["run", "pay", "--input", "in.jsonl"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("in.jsonl:1: ") and "fix" not in told[0].lower()
    assert told[1].startswith("  fix: ")
    assert str(TightshipError("it is 7", fix="write text")) == "it is 7. Fix: write text"
