"""One attempt at a model behind a port of our own: conversations, tiers, prices, providers, rehearsal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tightship.models.conversation import Conversation, Message, Thinking, ToolCall
from tightship.models.port import Model, ModelReply, ModelRequest, ModelSettings

if TYPE_CHECKING:
    from tightship.models.prices import Prices as Prices
    from tightship.models.rehearsal import RehearsalModel as RehearsalModel
    from tightship.models.rehearsal import rehearsed as rehearsed
    from tightship.models.service import Models as Models
    from tightship.models.tiers import Tier as Tier
    from tightship.models.tiers import Tiers as Tiers

_WHERE = {
    "Models": "service",
    "Prices": "prices",
    "RehearsalModel": "rehearsal",
    "Tier": "tiers",
    "Tiers": "tiers",
    "rehearsed": "rehearsal",
}
__all__ = [
    "Conversation",
    "Message",
    "Model",
    "ModelReply",
    "ModelRequest",
    "ModelSettings",
    "Models",
    "Prices",
    "RehearsalModel",
    "Thinking",
    "Tier",
    "Tiers",
    "ToolCall",
    "rehearsed",
]


def __getattr__(name: str) -> Any:
    """Each export is imported when it is first asked for; the providers' library only when a tier is used."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
