"""Readiness rules about load: what ten times the users would meet."""

from __future__ import annotations

from collections.abc import Iterator

from tightship.workflow.readiness import Check, Finding, Rule, rule


@rule(
    "TS330",
    "advice",
    "A tier has no rate limit",
    why="Under load every worker asks its provider as fast as it can, and is turned away again and again.",
    fix="Give the tier the provider's `requests_per_minute` and `tokens_per_minute`; all workers share them.",
)
def tier_without_rate(check: Check, rule: Rule) -> Iterator[Finding]:
    """Providers are asked no faster than they allow."""
    config = check.files.config
    for name, tier in config.tiers.items():
        if tier.requests_per_minute is None and tier.tokens_per_minute is None:
            yield rule.found(f"the tier {name!r} has neither", config.where("tiers", name, key=True))


@rule(
    "TS331",
    "warning",
    "One tenant may have more than there is for all",
    why="The bound of the tenant is never reached: the whole queue, or all places, are its own before.",
    fix="Lower the tenant's share, or raise the bound for all.",
)
def share_above_all(check: Check, rule: Rule) -> Iterator[Finding]:
    """Shares are shares."""
    config = check.files.config
    admission = config.admission
    shares = [("tenant", admission.tenant), *((f"tenants.{name}", one) for name, one in admission.tenants.items())]
    for where, share in shares:
        for unit in ("queued", "running"):
            own, whole = getattr(share, unit), getattr(admission, unit)
            if own is not None and whole is not None and own > whole:
                said = f"admission.{where}.{unit} is {own:,}, and for all it is {whole:,}"
                yield rule.found(said, config.where("admission", *where.split("."), unit))
