"""What patterns have noted, as decisions of the workflow itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tightship.insight._decision import DecisionKind, Rule
from tightship.insight._reading import alert_text


@dataclass(frozen=True, slots=True)
class Noted:
    """A decision as its note tells it."""

    kind: DecisionKind
    action: str
    rules: tuple[Rule, ...] = ()
    reason: str = ""


def noted(body: Mapping[str, Any], step: str) -> Noted | None:
    """What a note says was decided; None for one that tells of no decision.

    Args:
        body: the note with what it has sealed.
        step: the step that it is about.
    """
    type = str(body.get("type") or "")
    if type.startswith("checkpoint"):
        said = str(body.get("reason") or "")
        return Noted("checkpoint", "the checkpoint did not let it pass", (Rule("checkpoint", said, "failed"),), said)
    if type == "maker_checker.round":
        passed, objections = bool(body.get("passed")), [str(one) for one in body.get("objections") or ()]
        action = f"round {body.get('round')}: the checker {'let it pass' if passed else 'did not let it pass'}"
        return Noted("checkpoint", action, reason="; ".join(objections))
    if type == "settled":
        return _settled(body)
    if type == "exception":
        kind, error = str(body.get("kind") or ""), str(body.get("error") or "")
        return Noted("exception", f"{body.get('title') or step}: {error}", (Rule("on", kind, "declared behaviour"),))
    if type == "budget.alert":
        return Noted("condition", alert_text(body), (Rule("budget", str(body.get("scope") or ""), "alert at 80 %"),))
    return _coordinated(type, body, step)


def _coordinated(type: str, body: Mapping[str, Any], step: str) -> Noted | None:
    """What managers, peers and handoffs have come to."""
    problems, message = [str(one) for one in body.get("problems") or ()], str(body.get("message") or "")
    failed = f"{step.rpartition('/')[2]} failed: {body.get('error')}"
    found = {
        "plan.rejected": Noted("checkpoint", "the plan does not stand", reason="; ".join(problems)),
        "manager.replan": Noted("condition", f"planned anew: {body.get('title')}"),
        "manager.replaced": Noted("exception", "the fallback took the manager's place", reason=message),
        "task.failed": Noted("exception", failed, reason=message),
        "branch.failed": Noted("exception", failed, reason=message),
        "handoff": Noted("condition", f"{body.get('source')} handed over to {body.get('target')}"),
        "handoff.returned": Noted("checkpoint", "the handoff went back to its sender", reason="; ".join(problems)),
        "handoff.refused": Noted("exception", "the handoff does not stand", reason="; ".join(problems)),
        "peers.end": Noted("condition", f"the board: {body.get('title')}"),
    }
    return found.get(type)


def child_told(body: Mapping[str, Any]) -> Noted:
    """How a run below this one has ended."""
    outcome, workflow = str(body["outcome"]), str(body["at"]).rpartition("child:")[2].partition("/")[0]
    said = f"the run {body['child']} of {workflow} {'completed' if outcome == 'completed' else f'ended: {outcome}'}"
    return Noted("condition" if outcome == "completed" else "exception", said, reason=str(body.get("reason") or ""))


def _settled(body: Mapping[str, Any]) -> Noted:
    """A disagreement that a rule has ended, or has not: who said what, dissent included."""
    said = [f"{', '.join(one['by'])}: {one['answer']}" for one in body.get("tally") or ()]
    said += [f"{name}: {why}" for name, why in (body.get("reasons") or {}).items()]
    said += [f"{name} is absent: {why}" for name, why in (body.get("absent") or {}).items()]
    action = f"settled: {body.get('value')}" if body.get("decided") else "not settled"
    rule = Rule("settle", str(body.get("rule") or ""), str(body.get("why") or ""))
    return Noted("condition", action, (rule,), "; ".join(said))
