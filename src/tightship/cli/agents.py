"""`tightship agents …`: who works here, and how well a classifier's confidence is calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tightship.cli._shell import Shell, command
from tightship.core.errors import InputRejected, LoadError

if TYPE_CHECKING:
    from tightship.workflow.loader import WorkspaceFiles
    from tightship.workflow.models import AgentSpec


@click.group()
def agents() -> None:
    """List the agents; measure how well a classifier is calibrated."""


@agents.command("list")
@command
def list_(shell: Shell) -> None:
    """List the agents: what each is, who answers for it, what it may touch."""
    from tightship.cli._open import open_leniently

    files = open_leniently(shell.folder).files
    used = {name: sorted(w for w, spec in files.workflows.items() if name in spec.agents()) for name in files.agents}
    told = [_told(spec, used[spec.agent]) for spec in sorted(files.agents.values(), key=lambda one: one.agent)]
    shell.emit(told)
    if not told:
        shell.say("there are no agents")
        return
    columns = ("agent", "kind", "is", "owner", "tools", "confidence", "used in", "purpose")
    rows = [[_cell(one[name]) for name in columns] for one in told]
    shell.table(columns, rows, words=("tools", "used in", "purpose"), drop=("confidence", "kind", "used in", "tools"))


def _told(spec: AgentSpec, used: list[str]) -> dict[str, Any]:
    confidence = spec.confidence
    return {
        "agent": spec.agent,
        "kind": spec.kind,
        "is": getattr(spec, spec.kind),
        "owner": spec.owner,
        "purpose": spec.purpose,
        "tools": list(spec.tools),
        "confidence": None if confidence is None else confidence.source,
        "calibrated_on": None if confidence is None else confidence.calibrated_on,
        "used in": used,
    }


def _cell(value: Any) -> str:
    if not isinstance(value, list):
        return str(value or "")
    return ", ".join(value) if len(value) <= 3 else f"{', '.join(value[:2])} and {len(value) - 2} more"


@agents.command()
@click.argument("agent")
@click.option(
    "--folds", type=click.IntRange(2, 20), default=5, show_default=True, help="Parts of which each is held out."
)
@command
def calibration(shell: Shell, agent: str, folds: int) -> None:
    """Measure the classifier that AGENT's confidence comes from, on texts that it was not trained on.

    The texts are those of the agent's `calibrated_on`; each part of them is judged by a classifier trained on the
    others. Where a file NAME-test.jsonl lies beside NAME.jsonl, it is judged as well. Prints accuracy, expected
    calibration error (ECE), Brier score and reliability for each label.
    """
    from tightship.cli._open import open_leniently

    files = open_leniently(shell.folder).files
    spec = files.agent(agent)
    path, labels, concepts = _training(files, spec)
    figures = {label: _measure(path, label, concepts, folds) for label in labels}
    shell.emit({"agent": agent, "file": str(path.relative_to(files.root)), "labels": figures})
    for label, found in figures.items():
        for name, report in found.items():
            shell.say(f"{agent}, {label}, {name}", "head")
            shell.say(report.render())
            shell.say()


def _measure(path: Path, label: str, concepts: Path | None, folds: int) -> dict[str, Any]:
    """Reports by how the texts were held out."""
    from tightship.agents.offline import Concepts, TextClassifier, measure, read_examples

    try:
        groups = Concepts.read(concepts) if concepts is not None else None
        classifier = TextClassifier.train(read_examples(path, label), concepts=groups, folds=folds)
        reports = {"held-out folds": classifier.report()}
        test = path.with_name(f"{path.stem}-test{path.suffix}")
        if test.exists():
            examples = [one for one in read_examples(test, label) if one.label in classifier.labels]
            truth = [classifier.labels.index(one.label) for one in examples]
            rankings = [dict(classifier.predict(one.text).ranking) for one in examples]
            ordered = [[given[name] for name in classifier.labels] for given in rankings]
            reports[f"texts of {test.name}"] = measure(classifier.labels, truth, ordered)
    except (ValueError, KeyError) as error:
        raise LoadError(str(error), file=str(path), fix="one JSON object a line, with text and label") from None
    return reports


def _training(files: WorkspaceFiles, spec: AgentSpec) -> tuple[Path, list[str], Path | None]:
    """The file of texts, the labels in it that the agent gives, and the word groups beside it.

    Raises:
        InputRejected: the agent's confidence does not come from a classifier, or its file is not there.
    """
    confidence = spec.confidence
    if confidence is None or confidence.source != "classifier" or confidence.calibrated_on is None:
        raise InputRejected(
            f"the confidence of {spec.agent} does not come from a classifier with recorded texts",
            fix="declare `confidence: {source: classifier, calibrated_on: FILE.jsonl}`, or name another agent",
        )
    path = (files.root / confidence.calibrated_on).resolve()
    if not path.is_relative_to(files.root) or not path.is_file():
        raise InputRejected("the file that it was calibrated on is not in the workspace", where=str(path))
    labels = _labels(path, spec)
    if not labels:
        raise InputRejected(
            f"no field of its lines is an output of {spec.agent} with listed values", where=str(path), fix="name one so"
        )
    concepts = path.with_name("concepts.txt")
    return path, labels, concepts if concepts.exists() else None


def _labels(path: Path, spec: AgentSpec) -> list[str]:
    """Outputs with listed values that the texts are labelled with."""
    import orjson

    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"{}")
    try:
        known = orjson.loads(first)
    except orjson.JSONDecodeError as error:
        raise LoadError(f"it is no JSON: {error.msg}", file=str(path), line=1) from None
    return [name for name, kind in spec.output.items() if isinstance(kind, (list, tuple)) and name in known]
