"""A learned threshold counts for what it was certified for."""

from __future__ import annotations

from dataclasses import replace

from tightship.effects.frame import Learning
from tightship.review import Standing


def test_what_is_certified_for_less_does_not_count_for_more() -> None:
    standing = Standing("support/respond", "learned", 0.65, error=0.1, confidence=0.95)
    assert standing.in_force(Learning("support/respond", 0.1), 0.8) == (0.65, "learned")
    assert standing.in_force(Learning("support/respond", 0.2, 0.9), 0.8) == (0.65, "learned")
    assert standing.in_force(Learning("support/respond", 0.05), 0.8) == (0.95, "learning")
    assert standing.in_force(Learning("support/respond", 0.1, 0.99), 0.8) == (0.9, "learning")
    assert standing.in_force(Learning("support/respond", 0.1, guarantee="mean"), 0.8) == (0.65, "learned")
    in_the_mean = replace(standing, confidence=0.0)
    assert in_the_mean.in_force(Learning("support/respond", 0.1, guarantee="mean"), 0.8) == (0.65, "learned")
    assert in_the_mean.in_force(Learning("support/respond", 0.1), 0.8) == (0.9, "learning")
    assert replace(standing, frozen=0.9).in_force(Learning("support/respond", 0.05), 0.8) == (0.9, "frozen")
