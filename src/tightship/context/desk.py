"""What a workspace's shared context consists of, for whoever works with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tightship.context.conflicts import Merge
from tightship.context.declared import Declarations
from tightship.context.heads import Heads


@dataclass(frozen=True, slots=True)
class SharedContext:
    """The declared keys, their heads, and where merge functions come from (by `module:function`)."""

    declarations: Declarations
    heads: Heads
    merge: Callable[[str], Merge]
