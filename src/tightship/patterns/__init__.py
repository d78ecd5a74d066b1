"""Orchestration patterns, one file each: how it is written, what `check` looks at, what it does.

A new pattern is a new file here: `load_all` finds it, and its class registers itself under its word.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tightship.patterns.action import Action as Action
    from tightship.patterns.agent_step import AgentStep as AgentStep
    from tightship.patterns.checkpoint import Checkpoint as Checkpoint
    from tightship.patterns.concurrent import Concurrent as Concurrent
    from tightship.patterns.foreach import Foreach as Foreach
    from tightship.patterns.maker_checker import MakerChecker as MakerChecker
    from tightship.patterns.peers import Peers as Peers
    from tightship.patterns.review import Review as Review
    from tightship.patterns.sequence import Sequence as Sequence
    from tightship.patterns.vote import Vote as Vote
    from tightship.patterns.when import When as When
    from tightship.patterns.workflow_step import WorkflowStep as WorkflowStep


def load_all() -> None:
    """Import every pattern of this package, so that the loader knows its word. Cheap when done before."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")


def __getattr__(name: str) -> Any:
    """Pattern classes by name (`from tightship.patterns import Checkpoint`)."""
    from tightship.workflow.tree import patterns

    load_all()
    for word in patterns.words():
        if patterns.get(word).__name__ == name:
            return patterns.get(word)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
