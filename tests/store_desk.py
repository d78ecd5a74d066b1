"""The fixtures of tests over a store; apart from `ledger_desk`, which started processes load without pytest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ledger_desk import Store
from tightship.ledger import Ledger


def store_of(*kinds: str) -> Any:
    """The fixture `store` of a test file: a store of each of these kinds in turn, closed after its test."""

    @pytest.fixture(params=kinds)
    async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
        store = Store(request.param, tmp_path)
        yield store
        await store.close()

    return store


def ledger_of_store() -> Any:
    """The fixture `ledger` of a test file: that of its `store`."""

    @pytest.fixture
    async def ledger(store: Store) -> Ledger:
        return await store.open()

    return ledger
