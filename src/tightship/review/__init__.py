"""What reaches people: escalation packages, the inbox with its decisions, and thresholds that learn from them."""

from __future__ import annotations

from tightship.review.inbox import (
    Decision,
    InboxItem,
    InboxProjection,
    allowed_decisions,
    check_decision,
    closing_body,
    require_item,
)
from tightship.review.notices import DeliveriesProjection
from tightship.review.package import Option, Package, Situation, for_residual, from_exception
from tightship.review.thresholds import Standing, ThresholdsProjection

__all__ = [
    "Decision",
    "DeliveriesProjection",
    "InboxItem",
    "InboxProjection",
    "Option",
    "Package",
    "Situation",
    "Standing",
    "ThresholdsProjection",
    "allowed_decisions",
    "check_decision",
    "closing_body",
    "for_residual",
    "from_exception",
    "require_item",
]
