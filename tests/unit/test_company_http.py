"""The sample company over HTTP: nobody gets in without the token, bounds hold, faults do what they say."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.company import (
    FAULT_KINDS,
    MAX_BODY,
    Company,
    Fault,
    FaultKind,
    Faults,
    InProcessTransport,
    Refusal,
    build_app,
)
from tightship.company._contract import contract

AUTH = {"Authorization": "Bearer t"}
REFUND = {"order_id": "O-2001", "amount": 10.0, "reason": "goodwill"}
BEFORE: list[FaultKind] = ["rate_limit", "error", "timeout", "drop_before"]
AFTER: list[FaultKind] = ["error_after", "timeout_after", "drop_after", "malformed"]


class Service:
    """A company in this process with a client that has the token."""

    def __init__(self, seed: int = 1) -> None:
        self.company = Company(clock=lambda: 1.8e9, rng=random.Random(seed))
        self.faults = Faults(random.Random(seed))
        transport = InProcessTransport(build_app(self.company, self.faults, token="t"))
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://company", headers=AUTH)

    async def close(self) -> None:
        await self.client.aclose()
        self.company.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    yield service
    await service.close()


# Who may call


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json"])
async def test_health_and_document_are_open(service: Service, path: str) -> None:
    del service.client.headers["Authorization"]
    assert (await service.client.get(path)).status_code == 200


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Bearer x", "Basic t", "t", "Bearer tt"])
async def test_nothing_else_is_open_to_those_without_the_token(service: Service, authorization: str | None) -> None:
    del service.client.headers["Authorization"]
    headers = {} if authorization is None else {"Authorization": authorization}
    routes = [(operation.method, operation.path) for operation in contract().operations.values()]
    control = [
        ("GET", "/_ledger"),
        ("GET", "/_state"),
        ("GET", "/_faults"),
        ("PUT", "/_faults"),
        ("DELETE", "/_faults"),
    ]
    unknown = [
        ("GET", "/"),
        ("GET", "/nowhere"),
        ("DELETE", "/orders/O-2001"),
        ("GET", "/healthz/"),
        ("GET", "//healthz"),
    ]
    for method, path in [*routes, *control, *unknown]:
        response = await service.client.request(method, path, headers=headers, json=REFUND)
        assert response.status_code == 401, (method, path)
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert response.json()["code"] == "unauthorized"
    assert service.company.ledger() == []


async def test_two_authorizations_are_none(service: Service) -> None:
    request = service.client.build_request("GET", "/orders/O-2001")
    request.headers = httpx2.Headers([("Authorization", "Bearer t"), ("Authorization", "Bearer x")])
    assert (await service.client.send(request)).status_code == 401


async def test_without_a_given_token_a_random_one_guards_the_service() -> None:
    company = Company()
    tokens = {build_app(company, Faults()).state.token for _ in range(5)}
    company.close()
    assert len(tokens) == 5
    assert min(len(token) for token in tokens) >= 32


async def test_unknown_routes_and_methods_are_problems_too(service: Service) -> None:
    for method, path, status in (("GET", "/nowhere", 404), ("DELETE", "/orders/O-2001", 405)):
        response = await service.client.request(method, path)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"


# Bounds


async def oversize(service: Service, method: str, path: str, declared: str | None) -> httpx2.Response:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 1024 + 1):
            yield b" " * 1024

    headers = {"Content-Type": "application/json"} | ({"Content-Length": declared} if declared else {})
    return await service.client.request(method, path, content=chunks(), headers=headers)


@pytest.mark.parametrize("declared", [None, str(MAX_BODY + 1), "10", "9" * 30, "-1", "x"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/refunds"), ("PUT", "/_faults")])
async def test_a_body_over_the_bound_is_refused_whatever_length_it_claims(
    service: Service, method: str, path: str, declared: str | None
) -> None:
    response = await oversize(service, method, path, declared)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert service.company.ledger() == []


async def test_a_body_just_within_the_bound_is_read(service: Service) -> None:
    body = b'{"body": "Hello"}'.ljust(MAX_BODY)
    headers = {"Content-Type": "application/json"}
    response = await service.client.post("/tickets/T-3006/replies", content=body, headers=headers)
    assert response.status_code == 201


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b'{"body": "x"}', "text/plain", 415),
        (b'{"body": "x"}', "", 415),
        (b'{"body": "x"', "application/json", 422),
        (b'{"body": "\xff"}', "application/json", 422),
        (b'{"body": NaN}', "application/json", 422),
        (b"[" * 30_000, "application/json", 422),
        (b'{"body": "x", "body2": 1}', "application/json", 422),
        (b"null", "application/json", 422),
        (b'{"body": "x"}', "Application/JSON; charset=utf-8", 201),
    ],
)
async def test_only_json_that_fits_the_schema_is_taken(
    service: Service, content: bytes, media_type: str, status: int
) -> None:
    headers = {"Content-Type": media_type}
    response = await service.client.post("/tickets/T-3006/notes", content=content, headers=headers)
    assert response.status_code == status, response.text
    assert len(service.company.ledger()) == (status == 201)


async def test_a_body_where_none_belongs_is_refused(service: Service) -> None:
    assert (await service.client.request("GET", "/orders/O-2001", json={})).status_code == 422


async def test_a_parameter_given_twice_is_refused(service: Service) -> None:
    for query in ("limit=1&limit=2", "status=paid&status=paid"):
        assert (await service.client.get(f"/orders?{query}")).status_code == 422
    assert (await service.client.get("/orders/O-2001?order_id=O-2002")).status_code == 422


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.integers(-(2**60), 2**60)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    st.sampled_from(["subject", "body", "customer_id", "client_ref", "priority", "id"]),
)
def test_whatever_a_body_holds_the_answer_is_a_ticket_or_a_problem(value: Any, field: str) -> None:
    async def send() -> httpx2.Response:
        service = Service()
        body = {"subject": "s", "body": "b", field: value}
        response = await service.client.post("/tickets", json=body)
        if response.status_code == 201:
            assert (await service.client.get(f"/tickets/{response.json()['id']}")).json() == response.json()
        await service.close()
        return response

    assert asyncio.run(send()).status_code in (201, 404, 422)


# Faults


async def set_faults(service: Service, *faults: dict[str, Any]) -> None:
    assert (await service.client.put("/_faults", json={"faults": list(faults)})).status_code == 200


async def outcome(service: Service, key: str = "k") -> str:
    """What a client with a time-out sees of one refund."""
    try:
        response = await service.client.post("/refunds", json=REFUND, headers={"Idempotency-Key": key}, timeout=0.5)
        response.json()
    except httpx2.ReadTimeout:
        return "no answer"
    except httpx2.RemoteProtocolError:
        return "dropped"
    except ValueError:
        return "malformed"
    return str(response.status_code)


SEEN = {"rate_limit": "429", "error": "500", "error_after": "500", "malformed": "malformed"}
SEEN |= {"timeout": "no answer", "timeout_after": "no answer", "drop_before": "dropped", "drop_after": "dropped"}


@pytest.mark.parametrize("kind", BEFORE)
async def test_a_fault_before_the_write_leaves_nothing_done(service: Service, kind: FaultKind) -> None:
    await set_faults(service, {"operation": "refunds.create", "kind": kind, "times": 1})
    untouched = service.company.digest()
    assert await outcome(service) == SEEN[kind]
    assert service.company.digest() == untouched
    assert await outcome(service) == "201"
    assert len(service.company.ledger()) == 1


@pytest.mark.parametrize("kind", AFTER)
async def test_a_fault_after_the_write_leaves_it_done_and_a_retry_with_the_key_adds_none(
    service: Service, kind: FaultKind
) -> None:
    await set_faults(service, {"operation": "refunds.create", "kind": kind, "times": 1})
    assert await outcome(service) == SEEN[kind]
    assert [entry["result_id"] for entry in service.company.ledger()] == ["R-2001-1"]
    done = service.company.digest()
    assert await outcome(service) == "201"
    assert service.company.digest() == done
    assert len(service.company.ledger()) == 1


async def test_a_rate_limit_says_when_to_come_back(service: Service) -> None:
    await set_faults(service, {"kind": "rate_limit", "seconds": 2.5})
    response = await service.client.get("/orders/O-2001")
    assert (response.status_code, response.headers["Retry-After"]) == (429, "3")


async def test_faults_hit_only_their_operation_and_control_routes_never(service: Service) -> None:
    await set_faults(service, {"operation": "refunds.create", "kind": "error"})
    assert (await service.client.get("/orders/O-2001")).status_code == 200
    await set_faults(service, {"operation": "*", "kind": "error"})
    assert (await service.client.get("/orders/O-2001")).status_code == 500
    for path in ("/_faults", "/_state", "/_ledger", "/healthz", "/openapi.json"):
        assert (await service.client.get(path)).status_code == 200


async def test_fired_faults_are_counted_and_run_out(service: Service) -> None:
    await set_faults(service, {"operation": "orders.get", "kind": "error", "times": 2})
    codes = [(await service.client.get("/orders/O-2001")).status_code for _ in range(4)]
    assert codes == [500, 500, 200, 200]
    view = (await service.client.get("/_faults")).json()
    assert view["fired"] == {"orders.get": {"error": 2}}
    assert (view["total"], view["faults"][0]["times"], view["faults"][0]["fired"]) == (2, 0, 2)
    assert (await service.client.delete("/_faults")).json() == {"faults": [], "fired": {}, "total": 0}


async def test_the_first_fault_that_fits_ends_the_call_and_delays_add_up() -> None:
    faults = Faults()
    faults.set([Fault("latency", seconds=2), Fault("error"), Fault("drop_after"), Fault("latency", seconds=3)])
    hit = faults.draw("orders.get")
    assert hit.delay == 5
    assert hit.fault is not None
    assert hit.fault.kind == "error"
    assert (faults.fired("orders.get", "drop_after"), faults.fired("orders.get"), faults.fired()) == (0, 3, 3)


def test_the_same_seed_breaks_the_same_calls() -> None:
    def pattern(seed: int) -> list[bool]:
        faults = Faults(random.Random(seed))
        faults.set([Fault("error", rate=0.5)])
        return [faults.draw("orders.get").fault is not None for _ in range(64)]

    assert pattern(3) == pattern(3)
    assert pattern(3) != pattern(4)
    assert set(pattern(3)) == {True, False}


@pytest.mark.parametrize(
    "body",
    [
        *([], {}, {"faults": {}}, {"faults": [1]}, {"faults": [{}]}, {"faults": [], "more": 1}),
        *({"faults": [{"kind": kind}]} for kind in ("explode", None, 1, ["error"])),
        *({"faults": [{"kind": "error", "times": times}]} for times in (-1, 1.5, "2", True)),
        *({"faults": [{"kind": "error", "rate": rate}]} for rate in (-0.1, 1.1, "1", True)),
        *({"faults": [{"kind": "latency", "seconds": seconds}]} for seconds in (-1, 1e9, "1", None)),
        *({"faults": [{"kind": "error", "operation": name}]} for name in ("orders.burn", "", None, 7)),
        *({"faults": [{"kind": "error", "fired": 7}]}, {"faults": [{"kind": "error"}] * 201}),
    ],
)
async def test_a_fault_that_is_not_understood_changes_no_switch(service: Service, body: Any) -> None:
    await set_faults(service, {"operation": "orders.list", "kind": "error"})
    before = service.faults.view()
    response = await service.client.put("/_faults", json=body)
    assert (response.status_code, service.faults.view()) == (422, before)


def test_faults_in_python_are_checked_alike() -> None:
    with pytest.raises(Refusal):
        Fault("error", rate=2.0)


# Exactly once through a broken line


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([None, *FAULT_KINDS]), max_size=6), st.integers(0, 10))
def test_a_client_that_repeats_with_its_key_until_answered_refunds_once(
    kinds: list[FaultKind | None], seed: int
) -> None:
    async def scenario() -> tuple[list[str], str]:
        service = Service(seed)
        faults = [Fault(kind, "refunds.create", times=1, seconds=0.0) for kind in kinds if kind]
        service.faults.set(faults)
        while await outcome(service) != "201":
            pass
        result = [entry["result_id"] for entry in service.company.ledger()], service.company.digest()
        await service.close()
        return result

    undisturbed = Service()
    undisturbed.company.perform("refunds.create", call_of(REFUND))
    expected = undisturbed.company.digest()
    undisturbed.company.close()
    assert in_virtual_time(scenario()) == (["R-2001-1"], expected)


def call_of(body: dict[str, Any]) -> Any:
    from tightship.company import Call

    return Call(body=body)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing else is left to do."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready and scheduled:
            self.now = max(self.now, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


def in_virtual_time(scenario: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)


def test_one_seed_plays_the_same_story_in_virtual_time_on_one_thread() -> None:
    async def story(seed: int) -> tuple[float, list[str], str, dict[str, Any]]:
        service = Service(seed)
        service.faults.set(
            [
                Fault("latency", rate=0.5, seconds=1800.0),
                Fault("drop_after", rate=0.3),
                Fault("timeout", rate=0.2),
                Fault("error", rate=0.2),
            ]
        )
        service.client.timeout = httpx2.Timeout(3600.0)

        async def write(number: int) -> str:
            body = {"body": f"Message {number}", "client_ref": f"ref-{number}"}
            try:
                return str((await service.client.post("/tickets/T-3006/replies", json=body)).status_code)
            except httpx2.TransportError as error:
                return type(error).__name__

        seen = await asyncio.gather(*(write(number) for number in range(60)))
        assert threading.active_count() == threads
        result = asyncio.get_running_loop().time(), seen, service.company.digest(), service.faults.view()
        await service.close()
        return result

    threads = threading.active_count()
    first, second, other = (in_virtual_time(story(seed)) for seed in (5, 5, 6))
    assert first == second
    assert first != other
    assert first[0] == 3600.0, "the clock that was waited for is the loop's"
    assert {"201", "RemoteProtocolError", "ReadTimeout", "500"} <= set(first[1])
