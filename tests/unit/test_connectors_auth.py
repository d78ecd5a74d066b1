"""Signing in, and where secrets come from: used when needed, refreshed when refused, never shown."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from tightship.connectors.auth import auth_of
from tightship.connectors.openapi import OpenApiConnector
from tightship.connectors.secrets import ChainSecrets, EnvironmentSecrets, FileSecrets, default_secrets
from tightship.connectors.settings import AuthSettings
from tightship.core.errors import DataMissing, LoadError, NotDeclared, Unavailable, UnknownName
from tightship.core.ports import Request
from tightship.core.world import SystemClock, World

CONTRACT = {"openapi": "3.1.0", "paths": {"/me": {"get": {"operationId": "me", "responses": {}}}}}
SECRET = "s3cret/very+private"


class Service:
    """A system and its sign-in service in one: it says what it saw and accepts the tokens it gave."""

    def __init__(self, *, lifetime: Any = 3600) -> None:
        self.seen: list[httpx2.Request] = []
        self.given: list[str] = []
        self.valid: set[str] = set()
        self.lifetime = lifetime
        self.refuse_sign_in = False

    def __call__(self, asked: httpx2.Request) -> httpx2.Response:
        if asked.url.path == "/token":
            if self.refuse_sign_in:
                return httpx2.Response(401, json={"error": "invalid_client", "error_description": SECRET})
            token = f"token-{len(self.given)}"
            self.given.append(token)
            self.valid = {token}
            self.seen.append(asked)
            return httpx2.Response(200, json={"access_token": token, "expires_in": self.lifetime})
        self.seen.append(asked)
        bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if self.valid and bearer not in self.valid:
            return httpx2.Response(401, json={"detail": f"bad token {bearer}"})
        return httpx2.Response(200, json={"ok": True})


class Clock(SystemClock):
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:  # type: ignore[override]
        return self.at


def connector(service: Service, auth: dict[str, Any]) -> tuple[OpenApiConnector, Clock]:
    clock = Clock()
    world = World(clock=clock, transport=httpx2.MockTransport(service))
    secrets = EnvironmentSecrets(environment={"KEY": SECRET})
    settings = AuthSettings.model_validate(auth)
    return OpenApiConnector("api", CONTRACT, "https://api.test", auth_of(settings, secrets, world), world), clock


async def me(made: OpenApiConnector) -> Any:
    return await made.tool("api.me").perform(Request({}, "k", "r", "a", 9e12))


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"bearer": {"secret": "KEY"}}, "authorization", f"Bearer {SECRET}"),
        ({"api_key": {"secret": "KEY", "header": "X-Key"}}, "x-key", SECRET),
        (
            {"basic": {"username": "ada", "secret": "KEY"}},
            "authorization",
            "Basic " + base64.b64encode(f"ada:{SECRET}".encode()).decode(),
        ),
    ],
)
async def test_a_secret_goes_where_it_belongs(auth: dict[str, Any], header: str, value: str) -> None:
    service = Service()
    made, _ = connector(service, auth)
    await me(made)
    assert service.seen[0].headers[header] == value
    assert SECRET not in repr(made.auth)


async def test_a_key_in_the_query() -> None:
    service = Service()
    made, _ = connector(service, {"api_key": {"secret": "KEY", "query": "key"}})
    await me(made)
    assert parse_qs(service.seen[0].url.query.decode())["key"] == [SECRET]


OAUTH = {"oauth2": {"token_url": "https://id.test/token", "client_id": "me", "secret": "KEY", "scope": "read"}}


async def test_a_token_is_fetched_once_for_many_calls_at_once() -> None:
    service = Service()
    made, _ = connector(service, OAUTH)
    await asyncio.gather(*(me(made) for _ in range(5)))
    assert service.given == ["token-0"]
    asked = service.seen[0]
    assert parse_qs(asked.content.decode()) == {"grant_type": ["client_credentials"], "scope": ["read"]}
    coded = base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode()
    assert coded == "me:s3cret%2Fvery%2Bprivate"
    assert made.hosts == {"api.test", "id.test"}


async def test_a_token_is_renewed_before_it_ends() -> None:
    service = Service(lifetime=100)
    made, clock = connector(service, OAUTH)
    await me(made)
    clock.at += 60
    await me(made)
    assert len(service.given) == 1
    clock.at += 20
    await me(made)
    assert len(service.given) == 2


async def test_a_refused_token_is_renewed_once_and_no_more() -> None:
    service = Service()
    made, _ = connector(service, OAUTH)
    await me(made)
    service.valid = {"another"}
    await me(made)
    assert service.given == ["token-0", "token-1"]

    class Never(Service):
        def __call__(self, asked: httpx2.Request) -> httpx2.Response:
            answer = super().__call__(asked)
            self.valid = {"nobody's"}
            return answer

    never = Never()
    made, _ = connector(never, OAUTH)
    with pytest.raises(Unavailable, match="401") as caught:
        await me(made)
    assert len(never.given) == 2
    assert "token-1" not in str(caught.value)


@pytest.mark.parametrize("lifetime", ["soon", None, [1]])
async def test_a_sign_in_answer_that_is_none_is_unavailable(lifetime: Any) -> None:
    made, _ = connector(Service(lifetime=lifetime), OAUTH)
    with pytest.raises(Unavailable, match="access token"):
        await me(made)


async def test_a_refused_sign_in_is_unavailable_and_shows_nothing() -> None:
    service = Service()
    service.refuse_sign_in = True
    made, _ = connector(service, OAUTH)
    with pytest.raises(Unavailable, match="sign-in") as caught:
        await me(made)
    assert SECRET not in str(caught.value)


async def test_a_secret_that_the_other_side_repeats_is_struck_out() -> None:
    def handler(asked: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(404, json={"detail": f"no {asked.headers['authorization']}", "code": SECRET})

    world = World(transport=httpx2.MockTransport(handler))
    secrets = EnvironmentSecrets(environment={"KEY": SECRET})
    auth = auth_of(AuthSettings.model_validate({"bearer": {"secret": "KEY"}}), secrets, world)
    made = OpenApiConnector("api", CONTRACT, "https://api.test", auth, world)
    with pytest.raises(DataMissing) as caught:
        await me(made)
    assert SECRET not in f"{caught.value} {caught.value.evidence}"
    assert "[secret]" in str(caught.value)


async def test_a_secret_with_a_line_break_starts_no_header() -> None:
    world = World(transport=httpx2.MockTransport(Service()))
    secrets = EnvironmentSecrets(environment={"KEY": "a\r\nX-Evil: 1"})
    auth = auth_of(AuthSettings.model_validate({"bearer": {"secret": "KEY"}}), secrets, world)
    made = OpenApiConnector("api", CONTRACT, "https://api.test", auth, world)
    with pytest.raises(LoadError, match="'KEY'"):
        await me(made)


async def test_a_secret_is_read_at_the_moment_of_use() -> None:
    service = Service()
    environment = {"KEY": "first"}
    world = World(transport=httpx2.MockTransport(service))
    auth = auth_of(
        AuthSettings.model_validate({"bearer": {"secret": "KEY"}}), EnvironmentSecrets("", environment), world
    )
    made = OpenApiConnector("api", CONTRACT, "https://api.test", auth, world)
    await me(made)
    environment["KEY"] = "second"
    await me(made)
    assert [asked.headers["authorization"] for asked in service.seen] == ["Bearer first", "Bearer second"]
    environment.clear()
    with pytest.raises(UnknownName, match="KEY"):
        await me(made)


# --- where secrets are -----------------------------------------------------------------------------------------------


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_of_secrets(tmp_path: Path) -> None:
    secrets = FileSecrets(write(tmp_path / ".secrets", "# a comment\nA=one\nB = two = three \n#C=four\n"))
    assert secrets.get("A") == "one"
    assert secrets.get("B") == "two = three"
    for name in ("C", "#C", "D", ""):
        with pytest.raises(UnknownName):
            secrets.get(name)


def test_a_folder_of_secrets(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    write(folder / "A", "one\n")
    assert FileSecrets(folder).get("A") == "one"
    write(tmp_path / "outside", "leak")
    for name in ("B", "../outside", "..", ".", ""):
        with pytest.raises(UnknownName):
            FileSecrets(folder).get(name)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / ".secrets", "A=one", mode)
    with pytest.raises(LoadError, match="chmod 600"):
        FileSecrets(path).get("A")


def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / ".secrets", "")
    for data in (b"\xff\xfe", b"A=" + b"x" * 70_000):
        path.write_bytes(data)
        with pytest.raises(LoadError):
            FileSecrets(path).get("A")


def test_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / ".secrets", "TIGHTSHIP_TEST_A=file\nTIGHTSHIP_TEST_B=file")
    monkeypatch.setenv("TIGHTSHIP_TEST_A", "environment")
    secrets = default_secrets(tmp_path)
    assert secrets.get("TIGHTSHIP_TEST_A") == "environment"
    assert secrets.get("TIGHTSHIP_TEST_B") == "file"
    with pytest.raises(UnknownName, match="environment variable TIGHTSHIP_TEST_C or write it"):
        secrets.get("TIGHTSHIP_TEST_C")
    assert ChainSecrets([secrets]).get("TIGHTSHIP_TEST_B") == "file"


async def test_the_sign_in_service_is_the_only_other_host() -> None:
    made, _ = connector(Service(), OAUTH)
    from tightship.connectors._arguments import Outgoing

    with pytest.raises(NotDeclared):
        await made.http.send(Outgoing("GET", "https://id.test:8443/"), timeout=1, not_after=9e12)
