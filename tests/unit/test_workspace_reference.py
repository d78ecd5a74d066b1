"""A reference is one piece of work."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk, simulate

from tightship.core.errors import InputRejected
from tightship.runtime.simulation import Simulation


def test_the_same_reference_with_another_input_is_refused_and_names_the_run() -> None:
    seen: list[str] = []

    async def echo(ctx: Any, given: dict[str, Any]) -> Any:
        seen.append(given["case"])
        return {"x": given["case"]}

    async def scenario(sim: Simulation) -> None:
        desk = Desk(sim)
        desk.agent("echo", echo, input={"case": "str"}, output={"x": "str"})
        desk.workflow("echo", input={"case": "str"})
        first = await desk.run(case="alpha", reference="X")
        with pytest.raises(InputRejected, match=f"it was run before as {first.id} with another input") as caught:
            await desk.run(case="beta", reference="X")
        assert caught.value.where == "reference 'X'"
        assert caught.value.fix is not None and first.id in caught.value.fix
        assert (await desk.run(case="alpha", reference="X")).id == first.id
        assert (await desk.run(case="beta", reference="Y")).output == {"x": "beta"}

    simulate(scenario)
    assert seen == ["alpha", "beta"]
