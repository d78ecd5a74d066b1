"""`tightship init DIR`: a workspace from a template."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from tightship.cli._shell import Shell, command, run_async
from tightship.core.errors import UnknownName, WorkspaceError

TEMPLATES = Path(__file__).parent.parent / "templates"
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "__init__.py", ".DS_Store")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--template", default="support", show_default=True, help="Which template to copy.")
@command
def init(shell: Shell, folder: Path, template: str) -> None:
    """Make a workspace in DIR from a template. DIR must be empty or not be there."""
    shell.folder = folder
    made = make_workspace(folder, template)
    shell.emit({"workspace": str(folder), "template": template, "files": made})
    shell.say(f"{folder} is a workspace now: {len(made)} files of the template {template}, and an empty store.")
    first = first_workflow(folder, template)
    inputs = sorted(path.name for path in folder.glob("*.jsonl"))
    steps = [
        (f"cd {folder}", "everything below is meant from there"),
        ("tightship company serve", "the sample company, in a second terminal"),
        ("tightship check", "what would fail in production, and the fix"),
        (f"tightship blueprint {first}", "the workflow's whole map"),
    ]
    if (folder / "workflows" / "intake.yaml").exists() and inputs:
        steps.append((f"tightship run intake --input {inputs[0]}", "put the practice cases where the team finds them"))
    steps.append((f"tightship run {first} --input {inputs[0] if inputs else 'FILE.jsonl'}", "let the team work"))
    shell.next_steps(steps)


def names() -> list[str]:
    """The templates of this package."""
    return sorted(path.parent.name for path in TEMPLATES.glob("*/tightship.yaml"))


def make_workspace(folder: Path, template: str) -> list[str]:
    """Copy a template and make its store; returns the copied files.

    Raises:
        UnknownName: no such template. WorkspaceError: the folder is not empty, or cannot be written.
    """
    if template not in names():
        from tightship.workflow.source import did_you_mean

        raise UnknownName(f"there is no template {template!r}", fix=did_you_mean(template, names()))
    source = TEMPLATES / template
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise WorkspaceError(
                f"{folder} is not empty", fix="name a new folder; nothing that is there is ever overwritten"
            )
        shutil.copytree(source, folder, ignore=_IGNORED, dirs_exist_ok=True)
    except shutil.Error as error:
        raise WorkspaceError(f"the template could not be copied: {error.args[0][0][2]}", where=str(folder)) from None
    except OSError as error:
        raise WorkspaceError(
            f"the workspace could not be made: {error.strerror}",
            where=str(error.filename or folder),
            fix="choose a folder that can be written",
        ) from None
    run_async(lambda: _make_store(folder))
    return sorted(path.relative_to(folder).as_posix() for path in _files(folder, source))


async def _make_store(folder: Path) -> None:
    from tightship.cli._open import open_leniently

    workspace = open_leniently(folder)
    try:
        await workspace.ledger()
    finally:
        await workspace.close()


def _files(folder: Path, source: Path) -> list[Path]:
    copied = (folder / path.relative_to(source) for path in source.rglob("*"))
    return [path for path in copied if path.is_file()]


def first_workflow(folder: Path, template: str) -> str:
    """The workflow to begin with: the one that the template is named after, else the first."""
    found = sorted(path.stem for path in (folder / "workflows").glob("*.yaml"))
    return template if template in found or not found else found[0]
