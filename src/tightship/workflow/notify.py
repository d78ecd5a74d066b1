"""How an outside system is declared that is told what waits for people."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from tightship.workflow.models import Spec
from tightship.workflow.units import Duration, Name, is_loopback, secret_variable, variable

On = Literal["review", "escalation", "budget", "question", "residual", "drift", "leak", "reminder"]
"""The types of inbox items, and `reminder`: the time of one runs out."""
_URL = re.compile(r"https?://[^\s]+")


def refused_url(url: str, insecure_http: bool) -> str:
    """Why nothing is sent to a URL, without repeating it; empty where it is one that may be sent to."""
    try:
        parsed = urlsplit(url)
        host = parsed.hostname
    except ValueError:
        return "it is no URL"
    if not _URL.fullmatch(url) or not host:
        return "it is no absolute http(s) URL"
    if parsed.username or parsed.password:
        return "it holds a password; receivers know us by the signature"
    if parsed.scheme == "http" and not (insecure_http or is_loopback(url)):
        return "it is not encrypted; use https, or state insecure_http: true"
    return ""


class NotifyWebhook(Spec):
    """Signed requests (Standard Webhooks 1.0)."""

    url: Annotated[str, Field(pattern=r"^(https?://[^\s]+|\$\{[A-Za-z_][A-Za-z0-9_]*\})$", max_length=2000)]
    secret: Annotated[str, BeforeValidator(secret_variable)]
    timeout: Duration = Field(default=10.0, gt=0, le=60)
    insecure_http: bool = False
    """Allows `http:` to another machine."""

    @model_validator(mode="after")
    def _may_be_sent_to(self) -> NotifyWebhook:
        why = "" if self.url_name else refused_url(self.url, self.insecure_http)
        if why:
            raise ValueError(f"nothing is sent to this URL: {why}")
        return self

    @property
    def url_name(self) -> str:
        """The name of the secret that holds the URL; empty where the URL itself is written down."""
        return variable(self.url)

    @property
    def secret_name(self) -> str:
        """The name of the secret that it is signed with."""
        return variable(self.secret)


class Notify(Spec):
    """An outside system that is told of inbox items: by which way, and of which."""

    webhook: NotifyWebhook
    roles: tuple[Name, ...] = ()
    on: tuple[On, ...] = ()
    within: Duration = Field(default=3600.0, ge=1, le=604_800)
