"""Managers, handoffs and sagas from a seed: planners that plan well and poorly, agents that hand on, steps that stand or
fall together."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

PLANNER, RECEIVERS = "planner", ("h0", "h1", "h2")
ITEMS = ("left", "right")
"""What a manager's plans have to cover, where they have to."""

Gives = Callable[[random.Random, Mapping[str, Any]], dict[str, Any]]
"""What an agent gives beside what every agent gives, from its turn's chance and its input."""


def plan_of(turn: random.Random, given: Mapping[str, Any]) -> dict[str, Any]:
    """A planner's `tasks`; one plan in five does not stand."""
    team, items = list(given["team"]), list(given["items"])
    done = [one["id"] for one in given["done"] or ()]
    begun = len(done) + len(given["failed"] or ())
    tasks: list[dict[str, Any]] = []
    for number in range(turn.randint(1, 4)):
        before = [one["id"] for one in tasks] + done
        needs = [id for id in before if turn.random() < 0.3]
        name = f"t{begun}-{number}"
        tasks.append({"id": name, "worker": turn.choice(team), "goal": f"do {name}", "needs": needs, "covers": []})
    for item in items:
        for one in turn.sample(tasks, min(len(tasks), turn.randint(1, 2))):
            one["covers"].append(item)
    poor = turn.random()
    if poor < 0.05:
        tasks[0]["needs"] = [tasks[-1]["id"]]
        tasks[-1]["needs"] = [tasks[0]["id"]]
    elif poor < 0.1:
        tasks[-1]["worker"] = "nobody"
    elif poor < 0.15:
        tasks[-1]["covers"] = ["the moon"]
    elif poor < 0.2:
        tasks = []
    return {"tasks": tasks}


def passing(turn: random.Random, given: Mapping[str, Any]) -> dict[str, Any]:
    """Where the work goes next, if it goes on; one brief in eight does not fit."""
    if turn.random() < 0.4:
        return {}
    facts = [*(given["brief"].get("facts") or ()), f"fact {turn.randint(0, 99)}"]
    poor = turn.random()
    if poor < 0.06:
        facts = facts[1:]
    to = "nobody" if poor > 0.94 else turn.choice(given["peers"] or ["nobody"])
    return {"handoff": {"to": to, "brief": {"facts": facts}}}


class Coordination:
    """The steps of `plan.Maker` by which agents work together."""

    _rng: random.Random
    _agents: list[str]
    _child: str | None
    steps: Callable[[int, list[str]], list[Any]]
    _extras: Callable[..., dict[str, Any]]

    def coordinated(self, depth: int, bound: list[str]) -> list[Any]:
        """In half of the workflows a step by which agents work together, early, where most runs get to."""
        if self._rng.random() < 0.5:
            return []
        return [getattr(self, self._rng.choice(("_manager", "_manager", "_handoff", "_saga", "_vote")))(depth, bound)]

    def _vote(self, depth: int, bound: list[str]) -> Any:
        rng = self._rng
        voters: list[Any] = [rng.choice(self._agents) for _ in range(rng.randint(2, 4))]
        if rng.random() < 0.3:
            voters[0] = {"sequence": self.steps(0, list(bound))}
        judge = rng.choice(self._agents)
        settle = rng.choice(
            (
                {"rule": "majority"},
                {"rule": "quorum", "quorum": 2, "otherwise": rng.choice(("escalate", "fail"))},
                {"rule": "judge", "judge": judge, "blind_judge": True},
                {"rule": "unanimity", "otherwise": "judge", "judge": judge},
            )
        )
        fields: dict[str, Any] = {"voters": voters, "compare": "answer.ok", "settle": settle, "need": rng.randint(1, 2)}
        if rng.random() < 0.6:
            fields["within"] = rng.choice((0.3, 1.0, 5.0, 20.0))
        return {"vote": fields}

    def _manager(self, depth: int, bound: list[str]) -> Any:
        rng = self._rng
        workers: dict[str, Any] = {"one": rng.choice(self._agents)}
        if rng.random() < 0.6:
            workers["some"] = {"sequence": self.steps(0, list(bound))}
        if self._child and rng.random() < 0.4:
            workers["below"] = {"workflow": {"workflow": self._child}}
        fields: dict[str, Any] = {
            "plan": PLANNER,
            "workers": workers,
            "max_tasks": rng.choice((3, 6)),
            "concurrency": rng.randint(1, 3),
            "on_failure": rng.choice(("replan", "replan", "keep")),
            "replans": rng.randint(0, 2),
        }
        if rng.random() < 0.5:
            settle = rng.choice(({"rule": "majority"}, {"rule": "judge", "judge": rng.choice(self._agents)}))
            fields |= {"cover": '["left", "right"]', "answers": 2, "compare": "answer.ok", "settle": settle}
        if rng.random() < 0.4:
            fields["synthesise"] = rng.choice(self._agents)
        if rng.random() < 0.5:
            fields["fallback"] = {"sequence": self.steps(0, list(bound))}
        if rng.random() < 0.5:
            fields["within"] = rng.choice((0.5, 3.0, 20.0))
        return {"manager": fields}

    def _handoff(self, depth: int, bound: list[str]) -> Any:
        rng = self._rng
        peers = {name: [other for other in RECEIVERS if other != name] for name in RECEIVERS}
        fields: dict[str, Any] = {
            "first": rng.choice(RECEIVERS),
            "peers": peers,
            "brief": {"facts": "list[str]"},
            "keep": ["facts"] if rng.random() < 0.5 else [],
            "max": rng.randint(1, 4),
            "then": rng.choice(("escalate", "fail")),
        }
        if rng.random() < 0.2:
            fields["as"] = {"h2": {"sequence": self.steps(0, list(bound))}}
        return {"handoff": {**fields, **self._extras()}}

    def _saga(self, depth: int, bound: list[str]) -> Any:
        rng = self._rng
        fields: dict[str, Any] = {
            "steps": self.steps(depth - 1, list(bound)),
            "then": rng.choice(("escalate", "fail", "continue")),
            "give": {"done": False},
            "undo_retry": {"times": rng.randint(0, 2), "after": rng.choice((0.5, 2))},
        }
        return {"saga": {**fields, **self._extras()}}
