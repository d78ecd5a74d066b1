"""`tightship context`: the shared context as it stands, who wrote it, how old it is read, and its conflicts."""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

import click

from tightship.cli._exit import DONE
from tightship.cli._shell import Shell, command, dumps, run_async

_WHOSE = (
    click.option("--tenant", default="default", help="Whose value."),
    click.option("--workflow", "of_workflow", default="", help="Of a key whose scope is a workflow: which."),
    click.option("--run", "of_run", default="", help="Of a key whose scope is a run: which."),
)


def _whose(function: Any) -> Any:
    for option in reversed(_WHOSE):
        function = option(function)
    return function


_limit = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="So many at most."
)
_after = click.option(
    "--after", nargs=2, metavar="KEY SCOPE", help="Only those behind it: where the page before has ended."
)


def _more(shell: Shell, behind: tuple[str, str] | None) -> None:
    """Say where the next page begins, where there is one."""
    if behind:
        shell.note(f"this is a part; more is behind it: --after {shlex.join(behind)}")


@click.group()
def context() -> None:
    """The shared context: values with their versions, ages and writers."""


@context.command("list")
@click.argument("pattern", required=False)
@_limit
@_after
@command
def list_(shell: Shell, pattern: str | None, limit: int, after: tuple[str, str] | None) -> int:
    """List the values, or those whose keys match PATTERN (`stock/*`), in the order of their keys.

    It says when there are more; with --json, `next` is where the next page begins, and null after the last.
    """
    found = run_async(lambda: _list(shell, pattern or "", limit, after))
    shell.emit(found)
    if found["values"]:
        rows = [
            (one["key"], one["scope"], one["version"], _age(one["age"]), one["writer"], dumps(one["value"]))
            for one in found["values"]
        ]
        columns = ("key", "scope", "version", "age", "writer", "value")
        shell.table(columns, rows, right=("version",), words=("value",), drop=("scope",))
    _more(shell, found["next"])
    if not found["next"] and not found["values"]:
        shell.say("nothing is written" if after is None else "nothing is written behind it")
    return DONE


@context.command()
@click.argument("key")
@_whose
@command
def show(shell: Shell, key: str, tenant: str, of_workflow: str, of_run: str) -> int:
    """Show KEY: its value, its version, its writer, its sources and its times. It never refreshes."""
    from tightship.insight._reading import clock

    value = run_async(lambda: _show(shell, key, tenant, of_workflow, of_run))
    shell.emit(value)
    if not value["version"]:
        shell.say(f"{key}: nothing is written, or it has run out", "warn")
        return DONE
    shell.say(f"{key} = {dumps(value['value'])}")
    shell.say(f"  version  {value['version']}, written by {value['writer']} at {clock(value['at'])}")
    if value["as_of"] is not None:
        shell.say(f"  as of    {clock(value['as_of'])}, by its source's clock")
    shell.say(f"  age      {_age(value['age'])}")
    if value["run"]:
        shell.say(f"  run      {value['run']}")
    if value["sources"]:
        shell.say(f"  sources  {', '.join(map(str, value['sources']))}")
    return DONE


@context.command("set")
@click.argument("key")
@click.argument("value")
@_whose
@click.option("--by", help="Who writes it (default: whoever is logged in); a role among its writers has to be theirs.")
@click.option("--expect", type=click.IntRange(0), help="Only if it stands at this version; 0: if nothing is written.")
@command
def set_(
    shell: Shell, key: str, value: str, tenant: str, of_workflow: str, of_run: str, by: str | None, expect: int | None
) -> int:
    """Write VALUE, as JSON, under KEY."""
    import orjson

    from tightship.core import exact

    try:
        given = exact.loads(value)
    except exact.NumberTooLong as error:
        raise click.UsageError(error.msg) from None
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"the value is no JSON: {error}; text is written in quotes: '\"text\"'") from None
    version = run_async(lambda: _set(shell, key, given, tenant, of_workflow, of_run, by, expect))
    shell.emit({"key": key, "version": version})
    shell.say(f"{key} stands at version {version}", "good")
    return DONE


@context.command()
@click.argument("key", required=False)
@_whose
@click.option("--changes", type=click.IntRange(1), help="End after so many changes.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="End after so many seconds.")
@command
def watch(
    shell: Shell,
    key: str | None,
    tenant: str,
    of_workflow: str,
    of_run: str,
    changes: int | None,
    seconds: float | None,
) -> int:
    """Print every change as it comes: of KEY, of a pattern of keys, or without it of all keys of every scope."""
    run_async(lambda: _watch(shell, key or "", tenant, of_workflow, of_run, changes, seconds))
    return DONE


@context.command()
@click.argument("key", required=False)
@_limit
@_after
@command
def stats(shell: Shell, key: str | None, limit: int, after: tuple[str, str] | None) -> int:
    """How old values were when they were read, and conflicts, of every key or of KEY (or a pattern).

    It says when there are more; with --json, `next` is where the next page begins, and null after the last.
    """
    found, behind = run_async(lambda: _stats(shell, key or "", limit, after))
    shell.emit({"stats": found, "next": behind})
    if not found and not behind:
        shell.say("nothing was read or written" if after is None else "nothing was read or written behind it")
        return DONE
    rows = [
        (
            one["key"],
            one["scope"],
            one["writes"],
            one["reads"],
            _age(one["p50_age"]),
            _age(one["p99_age"]),
            one["stale"],
            one["refreshes"],
            one["write_conflicts"],
            one["read_conflicts"],
            one["refusals"],
        )
        for one in found
    ]
    columns = (
        *("key", "scope", "writes", "reads", "p50 age", "p99 age", "stale", "refreshes"),
        *("write conflicts", "read conflicts", "refusals"),
    )
    if rows:
        shell.table(columns, rows, right=columns[2:], drop=("scope", "refusals", "refreshes"))
    _more(shell, behind)
    return DONE


@context.command("listen")
@click.option(
    "--listen",
    "place",
    default="",
    metavar="HOST:PORT",
    help="For webhooks and /healthz (127.0.0.1:8788 where a feed is a webhook).",
)
@click.option("--behind-tls", is_flag=True, help="A proxy in front of it ends TLS: it may listen beyond loopback.")
@command
def listen_(shell: Shell, place: str, behind_tls: bool) -> None:
    """Take what the declared feeds push: webhooks at POST /context/FEED, changes of tables, messages of brokers.

    A webhook has to be signed with its feed's secret (Standard Webhooks 1.0); nothing else is answered. It speaks
    plain HTTP, so elsewhere than on a loopback address it listens only when --behind-tls says that TLS ends in front
    of it. /healthz answers whether the store can be read. Works beside a process that executes, and beside others of
    its kind: each delivery is written once.
    """
    from tightship.cli._listen import listen

    run_async(lambda: listen(shell, place, behind_tls))


@context.command("sql")
@click.argument("feed")
@command
def sql(shell: Shell, feed: str) -> int:
    """Print the SQL that makes the changes of FEED's table noted; its owner runs it once."""
    text = _sql(shell, feed)
    shell.emit({"feed": feed, "sql": text})
    if not shell.json:
        click.echo(text, nl=False)
    return DONE


def _sql(shell: Shell, feed: str) -> str:
    from tightship.cli._open import open_leniently
    from tightship.context.feeds.changes import setup_sql
    from tightship.core.errors import UnknownName
    from tightship.workflow.source import did_you_mean

    found = {name: one.postgres for name, one in open_leniently(shell.folder).files.config.feeds.items()}
    spec = found.get(feed)
    if spec is None:
        tables = [name for name, one in found.items() if one is not None]
        raise UnknownName(f"there is no feed {feed!r} that is a table of Postgres", fix=did_you_mean(feed, tables))
    return setup_sql(feed, spec)


def _age(seconds: float | None) -> str:
    from tightship.cli._report import seconds as shown

    return "" if seconds is None else shown(seconds)


async def _list(shell: Shell, pattern: str, limit: int, after: tuple[str, str] | None) -> dict[str, Any]:
    from tightship.cli._open import looking

    async with looking(shell) as workspace:
        found = await workspace.context.page(pattern, limit=limit, after=after)
        values = [{"scope": scope, **value.to_json()} for scope, value in found.values]
        return {"values": values, "next": found.next}


async def _show(shell: Shell, key: str, tenant: str, workflow: str, run: str) -> dict[str, Any]:
    from tightship.cli._open import looking

    async with looking(shell) as workspace:
        return (await workspace.context.get(key, tenant=tenant, workflow=workflow, run=run)).to_json()


async def _set(
    shell: Shell, key: str, value: Any, tenant: str, workflow: str, run: str, by: str | None, expect: int | None
) -> int:
    from tightship.cli._open import open_leniently, person

    workspace = open_leniently(shell.folder)  # a first value may be written before anything was run
    try:
        return await workspace.context.set(
            key, value, by=person(by), expect=expect, tenant=tenant, workflow=workflow, run=run
        )
    finally:
        await workspace.close()


async def _watch(
    shell: Shell, key: str, tenant: str, workflow: str, run: str, changes: int | None, seconds: float | None
) -> None:
    from contextlib import aclosing, suppress

    from tightship.cli._open import looking

    async with looking(shell) as workspace:
        told = 0
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(seconds),
                aclosing(workspace.context.watch(key, tenant=tenant, workflow=workflow, run=run)) as values,
            ):
                async for value in values:
                    shell.line(value.to_json())
                    shell.say(f"{value.key} = {dumps(value.value)}  (version {value.version}, {value.writer})")
                    told += 1
                    if changes is not None and told >= changes:
                        return


async def _stats(
    shell: Shell, key: str, limit: int, after: tuple[str, str] | None
) -> tuple[list[dict[str, Any]], tuple[str, str] | None]:
    from dataclasses import asdict

    from tightship.cli._open import looking
    from tightship.context import quantile

    async with looking(shell) as workspace:
        found = await workspace.context.counted(key, limit=limit, after=after)
    told = [
        {**asdict(one), "p50_age": quantile(one.ages, 0.5), "p99_age": quantile(one.ages, 0.99)} for one in found.stats
    ]
    return told, found.next
