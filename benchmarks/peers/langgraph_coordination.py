"""What coordination costs by pattern in LangGraph: the graphs of its supervisor and swarm, for equal work.

`langgraph-supervisor` and `langgraph-swarm` build their graphs around chat models; here the same graphs are written
with what they are made of, `Command` and `Send`, so that an agent's turn is a function that answers at once. Tasks run
side by side where the pattern allows it, which is fewer supersteps than a supervisor that calls one after another.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send

from benchmarks import workload

PLANNER, *WORKERS, WRITER = workload.TEAM

Action = Callable[..., Any]


class State(TypedDict, total=False):
    """The state of all four graphs: what came in, the messages of the agents, the brief that is passed on, the end."""

    ticket: str
    results: Annotated[list[dict[str, object]], operator.add]
    brief: dict[str, object]
    output: dict[str, object]


def _node(action: Action, asynchronous: bool) -> Action:
    async def act(state: Any) -> Any:
        return action(state)

    return act if asynchronous else action


def manager(*, asynchronous: bool) -> StateGraph[Any]:
    """One sends out three tasks, three answer, one puts the answers together."""

    def plan(state: State) -> Command[Any]:
        tasks = [{"id": name, "goal": f"do {name}", "input": {"step": 1}} for name in WORKERS]
        return Command(goto=[Send(name, {"task": task}) for name, task in zip(WORKERS, tasks, strict=True)])

    def work(state: Any) -> State:
        return {"results": [workload.answer()]}

    def write(state: State) -> State:
        return {"output": workload.answer()}

    graph: StateGraph[Any] = StateGraph(State)
    graph.add_node(PLANNER, _node(plan, asynchronous), destinations=tuple(WORKERS))
    graph.add_node(WRITER, _node(write, asynchronous))
    for name in WORKERS:
        graph.add_node(name, _node(work, asynchronous))
    graph.add_edge(START, PLANNER)
    graph.add_edge(list[str](WORKERS), WRITER)
    graph.add_edge(WRITER, END)
    return graph


def handoff(*, asynchronous: bool) -> StateGraph[Any]:
    """The work passes through five agents; each says who is next, and gives a brief."""

    def agent(place: int) -> Action:
        if place + 1 == len(workload.TEAM):
            return lambda state: {"output": workload.answer()}
        target = workload.TEAM[place + 1]
        return lambda state: Command(goto=target, update={"brief": workload.answer()})

    graph: StateGraph[Any] = StateGraph(State)
    for place, name in enumerate(workload.TEAM):
        graph.add_node(name, _node(agent(place), asynchronous), destinations=workload.TEAM[place + 1 : place + 2])
    graph.add_edge(START, workload.TEAM[0])
    graph.add_edge(workload.TEAM[-1], END)
    return graph


def fan_out(*, asynchronous: bool) -> StateGraph[Any]:
    """Five side by side."""

    def work(state: State) -> State:
        return {"results": [workload.answer()]}

    graph: StateGraph[Any] = StateGraph(State)
    for name in workload.TEAM:
        graph.add_node(name, _node(work, asynchronous))
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    return graph


def vote(*, asynchronous: bool) -> StateGraph[Any]:
    """Five side by side, and a node that counts."""

    def work(state: State) -> State:
        return {"results": [{**workload.answer(), "ok": True}]}

    def count(state: State) -> State:
        given = [bool(one["ok"]) for one in state.get("results", [])]
        return {"output": {"value": given.count(True) * 2 > len(given)}}

    graph: StateGraph[Any] = StateGraph(State)
    graph.add_node("count", _node(count, asynchronous))
    for name in workload.TEAM:
        graph.add_node(name, _node(work, asynchronous))
        graph.add_edge(START, name)
    graph.add_edge(list(workload.TEAM), "count")
    graph.add_edge("count", END)
    return graph


PATTERNS = {"manager": manager, "handoff": handoff, "fan_out": fan_out, "vote": vote}
