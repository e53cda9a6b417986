"""The commands of kvctl. Exit codes: 0 done, 1 not found or condition failed, 2 usage, 3 unavailable, 4 unknown outcome."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from kvclient.aio import AsyncClient
from kvclient.cli import show
from kvclient.cli.session import Session
from kvclient.cli.show import Format, Output
from kvclient.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    KVClusterError,
    NotFoundError,
    OutcomeUnknownError,
    VersionMismatchError,
)
from kvclient.operations import ReadMode, check_key, read_profile
from kvcommon.numbers import CLIENT_DEADLINE, GRPC_PORT

EXIT_CONDITION, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_UNKNOWN = 1, 2, 3, 4
EXIT_INTERRUPTED = 130

DEFAULT_ENDPOINT = f"localhost:{GRPC_PORT}"

app = typer.Typer(
    name="kvctl",
    help="Read and write a KVCluster, and see how it is. Options may stand before or after the command. "
    "Exit codes: 0 done; 1 not found, exists, or another version; 2 usage; 3 unavailable; 4 the outcome is unknown.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint", "-e", help=f"host[:port] of a router or a node; KV_ENDPOINT, {DEFAULT_ENDPOINT}"),
]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", "-t", min=0.001, help=f"Seconds to try; {CLIENT_DEADLINE:g}")
]
OutputOption = Annotated[Format | None, typer.Option("--output", "-o", help="For a person or a program; table")]
KeyArgument = Annotated[str, typer.Argument(help="The key: its UTF-8 bytes")]
ValueArgument = Annotated[
    str | None, typer.Argument(help="The value: its UTF-8 bytes. Left out: all of standard input, as it is")
]
FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", help="Take the value from this file, as it is", dir_okay=False)
]
ExpectOption = Annotated[
    int | None, typer.Option("--expect", min=0, help="Only if the key's version is this; 0: it does not exist")
]


@dataclass(frozen=True, slots=True)
class Options:
    """What all commands take."""

    endpoint: str | None = None
    timeout: float | None = None
    output: Format | None = None

    def over(self, other: "Options") -> "Options":
        """These where they are given, the others elsewhere."""
        return Options(self.endpoint or other.endpoint, self.timeout or other.timeout, self.output or other.output)

    @property
    def session(self) -> Session:
        """To the endpoint."""
        endpoint = self.endpoint or os.environ.get("KV_ENDPOINT") or DEFAULT_ENDPOINT
        return Session(endpoint, self.timeout or CLIENT_DEADLINE)

    @property
    def out(self) -> Output:
        """In the format."""
        return Output(self.output or Format.TABLE)


@app.callback()
def options(
    context: typer.Context,
    *,
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Read and write a KVCluster, and see how it is."""
    context.obj = Options(endpoint, timeout, output)


@app.command()
def get(
    context: typer.Context,
    *,
    key: KeyArgument,
    read_mode: Annotated[
        str, typer.Option("--read-mode", help="linearizable, bounded (with --max-lag) or any")
    ] = "linearizable",
    max_lag: Annotated[float | None, typer.Option("--max-lag", help="Seconds behind the leader, at most")] = None,
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Print a key's value: to a pipe its bytes as they are, to a terminal as text (or base64:...)."""
    chosen = _options(context, endpoint, timeout, output)
    name, mode = _key(key), _mode(read_mode, max_lag)

    async def read(client: AsyncClient) -> None:
        record = await client.get(name, read_mode=mode, max_lag=max_lag, timeout=chosen.timeout)
        if record is None:
            raise NotFoundError(f"key {key!r} does not exist")
        chosen.out.value(record)

    _run(_with_client(chosen, read))


@app.command()
def put(
    context: typer.Context,
    *,
    key: KeyArgument,
    value: ValueArgument = None,
    file: FileOption = None,
    expect: ExpectOption = None,
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Write a key, whether it exists or not, and print its new version."""
    chosen = _options(context, endpoint, timeout, output)
    data = _value(value, file)
    _write(chosen, key, lambda c, k: c.put(k, data, expected_version=expect, timeout=chosen.timeout))


@app.command()
def create(
    context: typer.Context,
    *,
    key: KeyArgument,
    value: ValueArgument = None,
    file: FileOption = None,
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Write a key that must not exist, and print its version."""
    chosen = _options(context, endpoint, timeout, output)
    data = _value(value, file)
    _write(chosen, key, lambda c, k: c.create(k, data, timeout=chosen.timeout))


@app.command()
def update(
    context: typer.Context,
    *,
    key: KeyArgument,
    value: ValueArgument = None,
    file: FileOption = None,
    expect: ExpectOption = None,
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Write a key that must exist, and print its new version."""
    chosen = _options(context, endpoint, timeout, output)
    data = _value(value, file)
    _write(chosen, key, lambda c, k: c.update(k, data, expected_version=expect, timeout=chosen.timeout))


@app.command()
def delete(
    context: typer.Context,
    *,
    key: KeyArgument,
    expect: ExpectOption = None,
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Remove a key that must exist, and print the deletion's version."""
    chosen = _options(context, endpoint, timeout, output)
    _write(chosen, key, lambda c, k: c.delete(k, expected_version=expect, timeout=chosen.timeout))


@app.command("map")
def map_(
    context: typer.Context,
    *,
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Show which partition owns which slots, who leads it, who is in sync."""
    chosen = _options(context, endpoint, timeout, output)

    async def ask() -> None:
        topology = await chosen.session.topology()
        chosen.out.show(show.map_json(topology), show.map_rows(topology))

    _run(ask())


@app.command()
def members(
    context: typer.Context,
    *,
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Show the nodes and their addresses."""
    chosen = _options(context, endpoint, timeout, output)

    async def ask() -> None:
        topology = await chosen.session.topology()
        chosen.out.show(show.members_json(topology), show.members_rows(topology))

    _run(ask())


@app.command()
def status(
    context: typer.Context,
    *,
    endpoint: EndpointOption = None,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Ask every node how it is. Exit code 3 when a partition has no serving leader that answers from here."""
    chosen = _options(context, endpoint, timeout, output)

    async def ask() -> None:
        topology = await chosen.session.topology()
        answers = await chosen.session.statuses(topology)
        chosen.out.show(show.status_json(topology, answers), show.status_rows(answers))
        missing = show.leaderless(topology, answers)
        if missing:
            named = ", ".join(map(str, missing))
            typer.echo(f"kvctl: no serving leader answered for partition {named}", err=True)
            raise typer.Exit(EXIT_UNAVAILABLE)

    _run(ask())


def _options(context: typer.Context, endpoint: str | None, timeout: float | None, output: Format | None) -> Options:
    """Those after the command over those before it."""
    return Options(endpoint, timeout, output).over(context.obj)


def _key(key: str) -> bytes:
    """The key as the shell gave it."""
    name = os.fsencode(key)
    try:
        check_key(name)
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from None
    return name


def _mode(read_mode: str, max_lag: float | None) -> ReadMode:
    """The read mode, which goes with its lag."""
    try:
        mode = ReadMode[read_mode.upper()]
        read_profile(mode, max_lag)
    except KeyError:
        raise typer.BadParameter(f"{read_mode!r} is none of linearizable, bounded, any") from None
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from None
    return mode


def _value(value: str | None, file: Path | None) -> bytes:
    """The value from the command line, a file or standard input."""
    if value is not None and file is not None:
        raise typer.BadParameter("give the value or --file, not both")
    if value is not None:
        return os.fsencode(value)
    if file is not None:
        try:
            return file.read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"can't read {file}: {error.strerror}") from None
    if sys.stdin.isatty():
        raise typer.BadParameter("no value: give it after the key, with --file, or on standard input")
    return sys.stdin.buffer.read()


def _write(chosen: Options, key: str, call: Callable[[AsyncClient, bytes], Awaitable[int]]) -> None:
    name = _key(key)

    async def write(client: AsyncClient) -> None:
        chosen.out.version(name, await call(client, name))

    _run(_with_client(chosen, write))


async def _with_client(chosen: Options, work: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async with await chosen.session.client() as client:
        await work(client)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end; an error becomes one sentence on stderr and an exit code."""
    try:
        asyncio.run(work)
    except KVClusterError as error:
        typer.echo(f"kvctl: {error}", err=True)
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_CONDITION) from None


def exit_code(error: KVClusterError) -> int:
    """The exit code that stands for an error."""
    if isinstance(error, NotFoundError | AlreadyExistsError | VersionMismatchError):
        return EXIT_CONDITION
    if isinstance(error, InvalidArgumentError):
        return EXIT_USAGE
    return EXIT_UNKNOWN if isinstance(error, OutcomeUnknownError) else EXIT_UNAVAILABLE


def main() -> None:
    """Run kvctl."""
    app()


if __name__ == "__main__":
    main()
