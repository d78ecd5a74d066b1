"""What a start and a check leave alone: operations that nobody calls, and modules that nobody needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tightship.cli import main
from tightship.runtime.workspace import Workspace

CONTRACT = {
    "openapi": "3.0.3",
    "info": {"title": "desk", "version": "1"},
    "paths": {
        f"/things/{n}": {"get": {"operationId": f"thing{n}", "responses": {"200": {"description": "it"}}}}
        for n in range(50)
    },
}
FILES = {
    "tightship.yaml": "name: desk\nconnectors:\n"
    "  desk: {openapi: desk.json, base_url: 'https://desk.example', auth: none,\n"
    "    operations: {thing1: {requests_per_second: 5}}}\n",
    "desk.json": json.dumps(CONTRACT),
    "tools/own.py": "from pathlib import Path\n"
    "(Path(__file__).parent.parent / 'imported').write_text('yes')\n"
    "from tightship import tool\n\n"
    "@tool(effect='read')\nasync def look(n: int) -> int:\n    return n\n",
    "agents/one.yaml": "agent: one\nowner: a\npurpose: looks\npython: one:one\ntools: [TOOLS]\n",
    "agents/one.py": "async def one(ctx, input):\n    return {}\n",
}


def workspace(folder: Path, tools: str) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text.replace("TOOLS", tools))
    return folder


async def test_a_start_compiles_no_operation_and_the_rate_of_one_holds_once_it_is_used(tmp_path: Path) -> None:
    async with Workspace.open(workspace(tmp_path, "desk.thing1")) as ws:
        engine = await ws.engine()
        tools = ws._outfit.tools  # pyright: ignore[reportPrivateUsage]
        assert [name for name in tools._made if name.startswith("desk.")] == []
        name = next(name for name in tools if name.endswith("thing1"))
        assert tools[name].spec.requests_per_second == 5
        assert engine.shared.rates._gates[name].rate.requests_per_second == 5


@pytest.mark.parametrize(
    ("tools", "options", "imported"),
    [("desk.thing1", [], False), ("own.look", [], True), ("own.look", ["--no-code"], False)],
)
def test_check_imports_modules_of_tools_only_where_a_name_needs_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tools: str, options: list[str], imported: bool
) -> None:
    main(["check", "-w", str(workspace(tmp_path, tools)), "--json", *options])
    told = json.loads(capsys.readouterr().out)
    assert (tmp_path / "imported").exists() == imported
    assert ["own.look" in line for line in told["contracts_unread"]] == ([True] if options else [])
