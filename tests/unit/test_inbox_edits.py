"""An edited value takes the place of what was reviewed, so it has to fit what was declared for it."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk

from tightship.core.errors import InputRejected
from tightship.review.inbox import Decision
from tightship.runtime.simulation import Simulation, simulate

REVIEW = {"review": {"by": "operator", "within": "4h", "otherwise": "escalate"}}


async def waiting(sim: Simulation, *steps: Any, output: Any = None, gives: Any = None) -> tuple[Desk, str]:
    async def draft(ctx: Any, input: dict[str, Any]) -> dict[str, Any]:
        return {"text": "sorry", "amount": 10.0}

    desk = Desk(sim)
    desk.agent("draft", draft, output={"text": "str", "amount": "float"} if output is None else output)
    desk.workflow(*steps, output=gives)
    await desk.run()
    [item] = await (await desk.operator()).items()
    return desk, item.item


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        (["draft", REVIEW], "draft"),
        ([{"draft": {"name": "letter"}}, REVIEW], "letter"),
        ([{"sequence": ["draft", REVIEW]}], "draft"),
    ],
)
@pytest.mark.parametrize(
    ("value", "field"),
    [({"text": "sorry", "amount": "a lot"}, "amount"), ({"text": "sorry"}, "amount"), ("sorry", "value")],
)
def test_an_edit_of_another_shape_is_refused_and_the_item_stays_open(
    steps: list[Any], name: str, value: Any, field: str
) -> None:
    async def story(sim: Simulation) -> tuple[InputRejected, bool, Any]:
        desk, item = await waiting(sim, *steps, gives={"sent": f"{name}.text"})
        operator = await desk.operator()
        with pytest.raises(InputRejected) as refused:
            await operator.decide(item, Decision("edit", "ann", value))
        still = (await operator.item(item))[0].open
        await operator.decide(item, Decision("edit", "ann", {"text": "very sorry", "amount": 5.0}))
        await desk.resume()
        run = await desk.only()
        return refused.value, still, (run.outcome, run.output)

    error, still, ended = simulate(story)
    assert field in str(error) and error.fix
    assert still
    assert ended == ("completed", {"sent": "very sorry"})


def test_where_no_shape_is_declared_any_value_is_taken() -> None:
    async def story(sim: Simulation) -> str:
        desk, item = await waiting(sim, "draft", REVIEW, output={})
        await (await desk.operator()).decide(item, Decision("edit", "ann", "anything"))
        await desk.resume()
        return (await desk.only()).outcome

    assert simulate(story) == "completed"
