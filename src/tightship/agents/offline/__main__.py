"""Print how well a classifier trained on a file of labelled sentences does on held-out folds."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import orjson

from tightship.agents.offline.classifier import TextClassifier, read_examples
from tightship.agents.offline.concepts import Concepts
from tightship.core.errors import TightshipError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--label", "labels", multiple=True, default=("topic",), show_default=True, help="The field that is predicted."
)
@click.option("--concepts", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file of word groups.")
@click.option("--folds", type=click.IntRange(2, 20), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(file: Path, labels: tuple[str, ...], concepts: Path | None, folds: int, as_json: bool) -> None:
    """Held-out accuracy, F1, calibration error and Brier score of a classifier trained on FILE (JSON lines)."""
    try:
        groups = Concepts.read(concepts) if concepts else None
        reports = {
            label: TextClassifier.train(read_examples(file, label), concepts=groups, folds=folds).report()
            for label in labels
        }
    except (TightshipError, ValueError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(
            orjson.dumps({label: report.as_dict() for label, report in reports.items()}, option=orjson.OPT_INDENT_2)
        )
        return
    for label, report in reports.items():
        click.echo(f"{label}\n{report.render()}\n")


if __name__ == "__main__":
    main()
