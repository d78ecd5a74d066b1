"""Readiness rules about the workspace: tiers, connectors, roles, budgets, secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from tightship.core.money import show_usd
from tightship.workflow.models import Spec
from tightship.workflow.readiness import Check, Finding, Rule, declare, rule
from tightship.workflow.source import Mark, MarkedDict, MarkedList
from tightship.workflow.units import is_loopback

_DATED = re.compile(
    r"(19|20)\d{2}[-.]?(0[1-9]|1[0-2])([-.]?(0[1-9]|[12]\d|3[01]))?(\D|$)|[-@](0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\D|$)"
)
_SECRETS: Final = (
    ("an API key", re.compile(r"\b(sk|pk|rk)[-_](live|test|proj|ant|or)?[-_]?[A-Za-z0-9_-]{16,}")),
    ("an access key of AWS", re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a token of GitHub", re.compile(r"\b(ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{30,}\b|\bgithub_pat_[A-Za-z0-9_]{30,}")),
    ("a token of Slack", re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}")),
    ("a key of Google", re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("a JSON web token", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("a bearer token", re.compile(r"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{20,}")),
    ("a password in a URL", re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]+:(?!\$\{\w+\}@)[^/\s@]{3,}@")),
    ("a password in a URL", re.compile(r"^postgres(?:ql)?://\S*[?&]password=(?!\$\{\w+\}(?:&|$))")),
)
_SECRET_KEY = re.compile(r"(?i)(^|_)(password|passwd|api_?key|access_token|client_secret|private_key)$")


@rule(
    "TS300",
    "warning",
    "A tier has no price with source and date",
    why="Costs would be wrong or unknown, and budgets could not be reserved.",
    fix="Add `price: {input: …, output: …, source: …, as_of: YYYY-MM-DD}` (USD per million tokens).",
)
def no_price(check: Check, rule: Rule) -> Iterator[Finding]:
    """Prices are known, with their date."""
    config = check.files.config
    for name, tier in config.tiers.items():
        missing = (
            ["price"] if tier.price is None else [w for w in ("source", "as_of") if getattr(tier.price, w) is None]
        )
        if missing:
            yield rule.found(f"the tier {name!r} has no {' and no '.join(missing)}", config.where("tiers", name))


@rule(
    "TS301",
    "warning",
    "A tier names a model without a date",
    why="The provider can change what an undated name means overnight; behaviour changes with no change here.",
    fix="Name the dated version, or set `undated: true` if the provider offers none.",
)
def undated_model(check: Check, rule: Rule) -> Iterator[Finding]:
    """Models are pinned."""
    config = check.files.config
    for name, tier in config.tiers.items():
        if not tier.undated and not _DATED.search(tier.model):
            yield rule.found(f"the tier {name!r} runs on {tier.model!r}", config.where("tiers", name, "model"))


@rule(
    "TS302",
    "error",
    "Tiers take over from each other in a circle",
    why="A model that fails would be tried again and again under other names.",
    fix="Let the last tier have no `next`.",
)
def tier_circle(check: Check, rule: Rule) -> Iterator[Finding]:
    """Fallbacks end."""
    config = check.files.config
    for name in config.tiers:
        chain = config.tier_chain(name)
        last = config.tiers[chain[-1]].next if chain else None
        if last == name:
            yield rule.found(f"{' -> '.join([*chain, name])}", config.where("tiers", name, "next"))


@rule(
    "TS303",
    "warning",
    "A connector does not sign in",
    why="A system that anybody may call is either open to everybody, or will refuse.",
    fix="Add `auth`, or `auth: none` if the system has no sign-in.",
)
def no_auth(check: Check, rule: Rule) -> Iterator[Finding]:
    """Sign-in is declared."""
    config = check.files.config
    for name, connector in config.connectors.items():
        if connector.auth is None:
            yield rule.found(f"the connector {name!r} declares no auth", config.where("connectors", name, key=True))


@rule(
    "TS304",
    "error",
    "Data would cross the network in clear",
    why="Over http anybody on the way reads the data and the sign-in.",
    fix="Use https.",
)
def clear_text(check: Check, rule: Rule) -> Iterator[Finding]:
    """TLS in transit."""
    config = check.files.config
    named = [
        (("connectors", name, "base_url"), one.base_url)
        for name, one in config.connectors.items()
        if not one.insecure_http
    ]
    named += [
        (("connectors", name, "auth", "oauth2", "token_url"), one.auth.oauth2.token_url)
        for name, one in config.connectors.items()
        if one.auth is not None and one.auth.oauth2 is not None and not one.insecure_http
    ]
    named += [(("connectors", name, "openapi"), one.openapi) for name, one in config.connectors.items()]
    named += [(("tiers", name, "base_url"), one.base_url) for name, one in config.tiers.items()]
    for path, url in named:
        if url is not None and url.startswith("http://") and not is_loopback(url):
            yield rule.found(f"{'.'.join(path)} is {url!r}", config.where(*path))


@rule(
    "TS305",
    "error",
    "A secret stands in a file",
    why="Files are copied, shared and kept in version control; a secret in one is a secret no more.",
    fix="Take it out (and replace it where it was issued), store it with the secrets, and write `{secret: NAME}`; "
    "in the store's URL write `${NAME}`, an environment variable.",
)
def inline_secret(check: Check, rule: Rule) -> Iterator[Finding]:
    """Secrets are named, never written."""
    specs: list[Spec] = [check.files.config, *check.files.agents.values(), *check.files.workflows.values()]
    for spec in specs:
        for what, mark in _secrets(spec._raw, None, ""):
            yield rule.found(f"{what} stands here", mark)
    for name, found in check.files.evals.items():
        for what, mark in _secrets(found, Mark(name, 1, 1), ""):
            yield rule.found(f"{what} stands here", mark)


def _secrets(value: Any, mark: Mark | None, key: str) -> Iterator[tuple[str, Mark | None]]:
    if isinstance(value, MarkedDict):
        for name, inner in value.items():
            yield from _secrets(inner, value.values_at.get(name, mark), name)
    elif isinstance(value, MarkedList):
        for inner, place in zip(value, value.items_at, strict=True):
            yield from _secrets(inner, place, key)
    elif isinstance(value, str):
        what = next((what for what, pattern in _SECRETS if pattern.search(value)), None)
        if what is None and _SECRET_KEY.search(key) and value not in _TYPES and len(value) >= 6:
            what = "what looks like a secret"
        if what is not None:
            yield what, mark


_TYPES: Final = frozenset({"str", "str?", "object", "any"})


@rule(
    "TS306",
    "warning",
    "No budget stands above the runs",
    why="Each run has its envelope, but nothing bounds how many runs there are.",
    fix="Add `budgets: {tenant: {day: {usd: …}, month: {usd: …}}}` to tightship.yaml.",
)
def no_tenant_budget(check: Check, rule: Rule) -> Iterator[Finding]:
    """The whole is bounded."""
    config = check.files.config
    tenant = config.budgets.tenant
    if check.files.workflows and tenant.day is None and tenant.month is None:
        yield rule.found("nothing bounds what all runs cost in a day or month", config.where("budgets", "tenant"))


@rule(
    "TS307",
    "error",
    "A role has nobody in it",
    why="What is sent to it reaches no one.",
    fix="Name at least one person, better two.",
)
def empty_role(check: Check, rule: Rule) -> Iterator[Finding]:
    """Roles are filled."""
    config = check.files.config
    for name, people in config.roles.items():
        if not people:
            yield rule.found(f"the role {name!r} is empty", config.where("roles", name))


@rule(
    "TS308",
    "advice",
    "A role has one person only",
    why="When that person is away, everything that waits for the role expires.",
    fix="Name a deputy.",
)
def lonely_role(check: Check, rule: Rule) -> Iterator[Finding]:
    """Roles have deputies."""
    config = check.files.config
    for name, people in config.roles.items():
        if len(people) == 1:
            yield rule.found(f"only {people[0]!r} holds the role {name!r}", config.where("roles", name))


def _tools_used(check: Check) -> set[str]:
    used = {tool for agent in check.files.agents.values() for tool in agent.tools}
    return used | {tool for workflow in check.workflows() for tool in workflow.tools()}


@rule(
    "TS309",
    "advice",
    "A connector is declared, and nothing uses any tool",
    why="A sign-in that is not needed is one that can be stolen.",
    fix="Delete the connector.",
)
def unused_connector(check: Check, rule: Rule) -> Iterator[Finding]:
    """Connections are needed."""
    config = check.files.config
    for name in config.connectors if not _tools_used(check) else ():
        yield rule.found(f"no agent or action uses {name!r}", config.where("connectors", name, key=True))


@rule(
    "TS310",
    "advice",
    "A role is used by nothing",
    why="People named in it believe that they are asked.",
    fix="Delete the role, or name it in a review or an agent.",
)
def unused_role(check: Check, rule: Rule) -> Iterator[Finding]:
    """Roles are needed."""
    config = check.files.config
    if not check.files.workflows:
        return  # they are written in Python, where nobody sees from here whom they ask
    used = {name for workflow in check.workflows() for name in workflow.roles()}
    used |= {agent.human for agent in check.files.agents.values() if agent.human is not None}
    used |= {role for workflow in check.workflows() if (role := workflow.escalation_role(config.roles)) is not None}
    watched = (*check.files.agents.values(), *check.workflows())
    used |= {one.drift.role for one in watched if one.drift is not None}
    used |= {config.leaks.role} if config.leaks is not None else set()
    for name in config.roles:
        if name not in used:
            yield rule.found(f"nothing names the role {name!r}", config.where("roles", name, key=True))


@rule(
    "TS311",
    "warning",
    "A contract is read over the network",
    why="It can change or be away when the workspace starts; what was checked is not what runs.",
    fix="Save the contract as a file of the workspace and name that.",
)
def remote_contract(check: Check, rule: Rule) -> Iterator[Finding]:
    """Contracts are pinned."""
    config = check.files.config
    for name, connector in config.connectors.items():
        url = connector.openapi
        if url.startswith(("http://", "https://")) and not is_loopback(url):
            yield rule.found(f"the contract of {name!r} is {url!r}", config.where("connectors", name, "openapi"))


@rule(
    "TS312",
    "error",
    "A contract file is not there",
    why="Without it none of the connector's tools exist.",
    fix="Add the file, or correct its path (below the workspace).",
)
def no_contract(check: Check, rule: Rule) -> Iterator[Finding]:
    """Contracts exist."""
    config, root = check.files.config, check.files.root
    for name, connector in config.connectors.items():
        url = connector.openapi
        if not url.startswith(("http://", "https://")) and not (root / url).is_file():
            yield rule.found(f"there is no file {url!r}", config.where("connectors", name, "openapi"))


@rule(
    "TS313",
    "error",
    "Nothing would survive a restart",
    why="In memory every run and its record would be gone with the process, so nothing is run on such a store.",
    fix="Use `store: sqlite:.tightship`, or `store: postgresql://…`.",
)
def memory_store(check: Check, rule: Rule) -> Iterator[Finding]:
    """Runs are durable."""
    config = check.files.config
    if config.store.url.startswith("memory:"):
        yield rule.found("the store is in memory", config.where("store"))


@rule(
    "TS314",
    "advice",
    "A tier is used by nobody",
    why="An unused tier keeps a secret and a price that nobody looks after.",
    fix="Delete the tier.",
)
def unused_tier(check: Check, rule: Rule) -> Iterator[Finding]:
    """Tiers are needed."""
    config = check.files.config
    if not check.files.workflows and not check.files.agents:
        return  # written in Python
    used = {name for agent in check.files.agents.values() if agent.model for name in config.tier_chain(agent.model)}
    for name in config.tiers:
        if name not in used:
            yield rule.found(f"no agent runs on {name!r}", config.where("tiers", name, key=True))


@rule(
    "TS316",
    "warning",
    "One run may spend more than all runs together",
    why="The run ends at the day's or the month's envelope, long before its own, and takes every other run with it.",
    fix="Lower the run's `usd`, or raise the budget above it in tightship.yaml.",
)
def larger_than_above(check: Check, rule: Rule) -> Iterator[Finding]:
    """A run fits into what stands above it."""
    budgets = check.files.config.budgets
    for workflow in check.workflows():
        own = budgets.workflows.get(workflow.workflow)
        above = [
            (period.usd, f"{whose} {name}")
            for whose, periods in (("the tenant's", budgets.tenant), ("the workflow's", own))
            for name, period in (("day", periods and periods.day), ("month", periods and periods.month))
            if period is not None and period.usd is not None
        ]
        usd = workflow.budget.usd
        if above and usd is not None and usd > min(above)[0]:
            limit, which = min(above)
            said = f"a run of {workflow.workflow!r} may spend {show_usd(usd)}, {which} has {show_usd(limit)}"
            yield rule.found(said, workflow.where("budget", "usd") or workflow.where("budget"))


CODE_GONE = declare(
    "TS320",
    "warning",
    "Open runs were started by code that nothing executes any more",
    why="A run is resumed by the code that started it; these stay where they are.",
    fix="Start a worker with the earlier code until they have ended, or resume them with this code:"
    " `tightship runs resume --all --accept-code`.",
)
"""`tightship check` looks into the store for it."""
