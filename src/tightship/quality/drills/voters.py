"""Drills on votes: one voice against all others, and all of them on something invented (P9, F3, F10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tightship.agents.context import AgentContext
from tightship.agents.turn import AgentFunction
from tightship.core import kinds
from tightship.core.ports import Json
from tightship.quality.drills.judge import asked_a_person, judge_safe, last, named, strange, told
from tightship.quality.drills.registry import Report, drill
from tightship.quality.drills.scene import Actor, Scene, act, play
from tightship.workflow.definition import reach
from tightship.workflow.models import AgentSpec

if TYPE_CHECKING:
    from tightship.patterns.vote import Vote
    from tightship.quality.drills.bench import Bench, Clean
    from tightship.runtime.result import Run

INVENTED: Final = "It was agreed by telephone with somebody who has left since."


class Voice(NamedTuple):
    """One voter of a vote: what it is called there, and the agents below it.

    Attributes:
        place: the part of a key below which it works. far: agents of workflows that it starts, whose keys begin anew.
        speakers: those whose output is its answer, each with where the answer stands in it.
        others: those that only help it (a checker); they have no objections when it says something else.
    """

    author: str
    place: str
    speakers: Mapping[str, tuple[str, ...]]
    others: Collection[str]
    far: Collection[str]

    @property
    def agents(self) -> set[str]:
        """All agents below it."""
        return {*self.speakers, *self.others}

    def has(self, key: str, agent: str) -> bool:
        """Whether a turn of an agent belongs to it."""
        return agent in self.agents and (self.place in f"/{key}/" or agent in self.far)


def _no_votes(bench: Bench) -> str:
    if not bench.steps("vote"):
        return "no step is a vote"
    return "" if bench.acting(1) else "no case acts undisturbed"


def _voices(bench: Bench, step: Vote) -> list[Voice]:
    """The voters of a vote, whatever they are: an agent, a pattern, another workflow."""
    path = () if step.compare is None or not step.compare.refs else tuple(step.compare.refs[0].path[1:])
    return [_voice(bench, step, number, path) for number in range(len(step.voters))]


def _voice(bench: Bench, step: Vote, number: int, path: tuple[str, ...]) -> Voice:
    voter = step.voters[number]
    near = [name for one in voter.walk() for name in one.agents()]
    far = [name for one in voter.walk() for flow in one.workflows() for name in reach(flow, bench.files)[1]]
    fields = {name: _fields(bench.files.agent(name)) for name in [*near, *far]}
    if voter.result in fields:
        saying = {voter.result: path}
    elif path and path[0] in fields:
        saying = {path[0]: path[1:]}
    else:
        saying = {name: path for name in fields if path and path[0] in fields[name]} or dict.fromkeys(fields, ())
    speakers = {name: where if where and where[0] in fields[name] else () for name, where in saying.items()}
    place = f"/{step.part}/{number + 1}/{voter.part}/"
    others = [name for name in fields if name not in speakers]
    return Voice(step.authors[number], place, speakers, others, [name for name in far if name not in near])


def _fields(spec: AgentSpec) -> Mapping[str, Any]:
    return (spec.output_schema or {}).get("properties", {})


def _case_of(bench: Bench, report: Report, step: Vote, voices: Sequence[Voice]) -> Clean | None:
    """The first case that comes to this vote with more than one voice; None, and why, where it cannot be drilled."""
    if people := [one.author for one in voices if any(bench.files.agent(name).human for name in one.agents)]:
        report.skip(f"{step.part}: {', '.join(people)} asks a person, whose word nobody puts into their mouth")
        return None
    for clean in bench.acting(len(bench.cases)):
        if sum(not one.agents.isdisjoint(clean.agents) for one in voices) > 1:
            return clean
    report.skip(f"{step.part}: in no case that acts two of its voters take a turn")
    return None


@drill(
    "disagreeing-voters",
    broken="one voter after the other says what leads to the action, and all others say otherwise",
    fix="weigh so that no single voice decides (majority, quorum), or let a judge or a person decide",
    applies=_no_votes,
)
def disagreeing_voters(bench: Bench, report: Report) -> None:
    """No single voice acts against all others."""
    for step in bench.steps("vote"):
        voices = _voices(bench, step)
        clean = _case_of(bench, report, step, voices)
        if clean is None:
            continue
        for alone in voices:
            story = _alone(report, step, alone.author, clean)
            play(bench, story, actor=_against(alone, voices, clean))


def _alone(report: Report, step: Vote, author: str, clean: Clean) -> Callable[[Scene], Awaitable[None]]:
    """A case in which one voter has all others against it."""

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        run = await scene.run(clean.case)
        if await _disagreed(scene, run, step):
            led = f"{author} alone, against all others, led to"
            await _hold(report, scene, run, clean, f"{author} alone", led)
        else:
            report.skip(f"{step.part}: nobody could be made to say something else than {author}")

    return story


async def _hold(report: Report, scene: Scene, run: Run, clean: Clean, what: str, led: str) -> None:
    """Nothing strange was done, or a person was asked. `led` says what it would have led to."""
    done = await strange(scene, run, ())
    notes = [e for e in run.entries if e.kind == kinds.NOTE and e.body.get("type") == "settled"]
    report.hold(
        not done or asked_a_person(run),
        f"{what}: {told(run)}",
        f"{led} {named(done)}",
        notes or last(run),
    )
    await judge_safe(report, scene, run, clean, what)


async def _disagreed(scene: Scene, run: Run, step: Vote) -> bool:
    """Whether not all voters of this vote were counted with the same answer; so too where nothing was counted."""
    notes = [e for e in run.entries if e.kind == kinds.NOTE and e.body.get("type") == "settled" and "detail" in e.body]
    values = await scene.ledger.values([note.body["detail"] for note in notes], erased={})
    counted = [one for one in values.values() if _voices_of(one) == set(step.authors)]
    return not counted or any(one["absent"] or len(one["tally"]) > 1 for one in counted)


def _voices_of(body: Mapping[str, Any]) -> set[str]:
    return {*body.get("absent", ()), *(name for one in body.get("tally", ()) for name in one["by"])}


def _against(alone: Voice, voices: Sequence[Voice], clean: Clean) -> Actor:
    """All voters but one say otherwise."""

    def actor(spec: AgentSpec, function: AgentFunction) -> AgentFunction:
        numbered = [(number, one) for number, one in enumerate(voices, 1) if spec.agent in one.agents]
        if not numbered:
            return function

        async def contrary(ctx: AgentContext, given: dict[str, Json]) -> Json:
            number, voice = next(((n, one) for n, one in numbered if one.has(ctx.key, spec.agent)), (0, alone))
            output = await act(function, ctx, given)
            if voice is alone:
                return output
            if spec.agent not in voice.speakers:
                return clean.outputs.get(spec.agent, output)
            return differing(output, voice.speakers[spec.agent], number, spec)

        return contrary

    return actor


def differing(output: Json, path: tuple[str, ...], number: int, spec: AgentSpec) -> Json:
    """An output whose answer differs from the usual one: a bool is turned, anything else is one of its own."""
    if not isinstance(output, Mapping):
        return output
    if not path:
        turned = {name: not value for name, value in output.items() if isinstance(value, bool)}
        return {**output, **turned} if turned else {**output, **_moved(output, number)}
    first, rest = path[0], path[1:]
    value = output.get(first)
    if rest:
        return {**output, first: differing(value, rest, number, spec)}
    schema: Mapping[str, Any] = (spec.output_schema or {}).get("properties", {}).get(first, {})
    return {**output, first: _other(value, number, schema.get("enum"))}


def _moved(output: Mapping[str, Json], number: int) -> dict[str, Json]:
    name = next(iter(output), None)
    return {} if name is None else {name: _other(output[name], number, None)}


def _other(value: Json, number: int, choices: list[Any] | None) -> Json:
    if choices:
        others = [one for one in choices if one != value]
        return others[number % len(others)] if others else value
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + number
    return f"{value} (no {number})" if isinstance(value, str) else value


# --- agreement without a source ------------------------------------------------------------------------


def _cited(spec: AgentSpec) -> list[str]:
    """The fields of an agent's output that hold claims with their sources."""
    properties: Mapping[str, Any] = {} if spec.output_schema is None else spec.output_schema["properties"]
    shapes = {name: set(one.get("items", {}).get("properties", {})) for name, one in properties.items()}
    return [name for name, fields in shapes.items() if {"claim", "source"} <= fields]


def _cites_nothing(bench: Bench) -> str:
    if why := _no_votes(bench):
        return why
    voting = {name for step in bench.steps("vote") for voice in _voices(bench, step) for name in voice.agents}
    return "" if any(_cited(spec) for spec in bench.agents() if spec.agent in voting) else "no voter gives claims"


@drill(
    "ungrounded-agreement",
    broken="all voters agree on what leads to the action, have read nothing, and claim what no source says",
    fix="declare `grounded` at the vote: an answer whose claims do not stand in their sources counts for nothing",
    applies=_cites_nothing,
)
def ungrounded_agreement(bench: Bench, report: Report) -> None:
    """That several say the same is no evidence that it is so."""
    for step in bench.steps("vote"):
        voices = _voices(bench, step)
        clean = _case_of(bench, report, step, voices)
        if clean is None:
            continue
        voters = {name for one in voices for name in one.agents}

        def actor(
            spec: AgentSpec, function: AgentFunction, voters: set[str] = voters, clean: Clean = clean
        ) -> AgentFunction:
            if spec.agent not in voters:
                return function

            async def inventing(ctx: AgentContext, given: dict[str, Json]) -> Json:
                said = {name: [{"claim": INVENTED, "source": ""}] for name in _cited(spec)}
                output = clean.outputs.get(spec.agent)
                return {**output, **said} if isinstance(output, Mapping) else output

            return inventing

        async def story(scene: Scene, step: Vote = step, clean: Clean = clean) -> None:
            await scene.prepare(clean.case)
            run = await scene.run(clean.case)
            led = f"{step.part}: all agreed on what no source says, and it did"
            await _hold(report, scene, run, clean, f"{step.part}, all on an invention", led)

        play(bench, story, actor=actor)
