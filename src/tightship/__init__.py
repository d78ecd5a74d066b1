"""Tightship: durable, governed multi-agent systems.

```python
from tightship import Workspace

async with Workspace.open(".") as ws:
    run = await ws.run("support", {"ticket": "Where is my order?", "customer_id": "C-1001"})
    print(run.outcome, run.cost, run.decisions)
```

Every name below is loaded when it is first used, so that `import tightship` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tightship._version import __version__

if TYPE_CHECKING:
    from tightship.agents.context import AgentContext as AgentContext
    from tightship.connectors.python import tool as tool
    from tightship.controls.loop_verdicts import LoopVerdict as LoopVerdict
    from tightship.controls.loop_verdicts import detect_loops as detect_loops
    from tightship.core.errors import BuildMismatch as BuildMismatch
    from tightship.core.errors import ConflictingWrite as ConflictingWrite
    from tightship.core.errors import DataMissing as DataMissing
    from tightship.core.errors import ExecutorBusy as ExecutorBusy
    from tightship.core.errors import FormatMismatch as FormatMismatch
    from tightship.core.errors import InputRejected as InputRejected
    from tightship.core.errors import LoadError as LoadError
    from tightship.core.errors import LowConfidence as LowConfidence
    from tightship.core.errors import OutcomeUnknown as OutcomeUnknown
    from tightship.core.errors import OutOfScope as OutOfScope
    from tightship.core.errors import RateLimited as RateLimited
    from tightship.core.errors import RuleConflict as RuleConflict
    from tightship.core.errors import StaleContext as StaleContext
    from tightship.core.errors import StoreError as StoreError
    from tightship.core.errors import TightshipError as TightshipError
    from tightship.core.errors import TimedOut as TimedOut
    from tightship.core.errors import Unavailable as Unavailable
    from tightship.core.errors import Unforeseen as Unforeseen
    from tightship.core.errors import WorkException as WorkException
    from tightship.core.errors import WriteFailed as WriteFailed
    from tightship.core.ports import Reply as Reply
    from tightship.core.ports import Request as Request
    from tightship.core.ports import UndoSpec as UndoSpec
    from tightship.insight.attribution import attribute as attribute
    from tightship.runtime.result import Run as Run
    from tightship.runtime.workspace import Workspace as Workspace
    from tightship.workflow.build import Agent as Agent
    from tightship.workflow.build import Workflow as Workflow
    from tightship.workflow.build import agent as agent
    from tightship.workflow.build import step as step

_HOMES = {
    "tightship.runtime.workspace": ("Workspace",),
    "tightship.runtime.result": ("Run",),
    "tightship.workflow.build": ("Agent", "Workflow", "agent", "step"),
    "tightship.connectors.python": ("tool",),
    "tightship.agents.context": ("AgentContext",),
    "tightship.controls.loop_verdicts": ("LoopVerdict", "detect_loops"),
    "tightship.insight.attribution": ("attribute",),
    "tightship.core.ports": ("Reply", "Request", "UndoSpec"),
    "tightship.core.errors": (
        "BuildMismatch",
        "ConflictingWrite",
        "DataMissing",
        "ExecutorBusy",
        "FormatMismatch",
        "InputRejected",
        "LoadError",
        "LowConfidence",
        "OutOfScope",
        "OutcomeUnknown",
        "RateLimited",
        "RuleConflict",
        "StaleContext",
        "StoreError",
        "TightshipError",
        "TimedOut",
        "Unavailable",
        "Unforeseen",
        "WorkException",
        "WriteFailed",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "AgentContext",
    "BuildMismatch",
    "ConflictingWrite",
    "DataMissing",
    "ExecutorBusy",
    "FormatMismatch",
    "InputRejected",
    "LoadError",
    "LoopVerdict",
    "LowConfidence",
    "OutOfScope",
    "OutcomeUnknown",
    "RateLimited",
    "Reply",
    "Request",
    "RuleConflict",
    "Run",
    "StaleContext",
    "StoreError",
    "TightshipError",
    "TimedOut",
    "Unavailable",
    "UndoSpec",
    "Unforeseen",
    "WorkException",
    "Workflow",
    "Workspace",
    "WriteFailed",
    "__version__",
    "agent",
    "attribute",
    "detect_loops",
    "step",
    "tool",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if module == "tightship.workflow.build":
        import_module("tightship.patterns").load_all()  # a step is known by its pattern's word
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
