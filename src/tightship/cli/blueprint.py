"""`tightship blueprint WORKFLOW`: the whole map of a workflow."""

from __future__ import annotations

from pathlib import Path

import click

from tightship.cli._shell import Shell, command, run_async


@click.command()
@click.argument("workflow")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file instead.")
@command
def blueprint(shell: Shell, workflow: str, out: Path | None) -> None:
    """Print a workflow's map as Markdown: trigger, data, steps, permissions, exception paths, actions, completion."""
    text = run_async(lambda: _map(shell, workflow))
    if out is not None:
        from tightship.core.errors import WorkspaceError

        try:
            out.write_text(text)
        except OSError as error:
            raise WorkspaceError(f"it cannot be written: {error.strerror}", where=str(out)) from None
    shell.emit({"workflow": workflow, "markdown": text, **({"file": str(out)} if out else {})})
    shell.say(f"written to {out}" if out else text.rstrip("\n"))


async def _map(shell: Shell, workflow: str) -> str:
    from tightship.cli._open import open_leniently
    from tightship.cli.check import contracts
    from tightship.workflow.blueprint import blueprint as drawn
    from tightship.workflow.loader import load_workspace

    files = open_leniently(shell.folder).files
    if workflow not in files.workflows:
        load_workspace(shell.folder).raise_first()  # a file that cannot be read may be the one that is meant
    return drawn(workflow, files, await contracts(files, offline=True, unread=[]))
