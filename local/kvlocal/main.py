"""The command line: `kvlocal run [MANIFEST]`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from kvcommon.errors import ConfigurationError, KVClusterError
from kvlocal.nursery import Nursery
from kvlocal.screen import Screen

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2

app = typer.Typer(help="A KVCluster as local processes.", no_args_is_help=True, add_completion=False)


@app.callback()
def _commands() -> None:
    """A KVCluster as local processes."""


@app.command()
def run(  # noqa: PLR0917 - typer makes options of them
    manifest: Annotated[Path, typer.Argument(help="A KVCluster manifest.")] = Path("examples/quickstart.yaml"),
    data: Annotated[Path | None, typer.Option(help="Data folder.  [default: .kvcluster/<name>]")] = None,
    zookeeper: Annotated[str, typer.Option(help="host:port,... for coordination instead of a SQLite file.")] = "",
    port: Annotated[int, typer.Option(help="The router's gRPC port on the first run; 0: any.")] = 7400,
    http_port: Annotated[int, typer.Option(help="The router's HTTP port on the first run; 0: any.")] = 7480,
    redis_port: Annotated[int, typer.Option(help="The router's Redis port on the first run; 0: any.")] = 6379,
    demo: Annotated[bool, typer.Option(help="Show a failover.")] = True,
    exit_after_demo: Annotated[bool, typer.Option(help="End after the demonstration, for CI.")] = False,
) -> None:
    """Run every node and a router of a KVCluster on 127.0.0.1, show a failover, stay up until Ctrl-C."""
    screen = Screen()
    launcher = Nursery()  # it imports while this process does
    from kvlocal.session import Options, run_until_stopped

    options = Options(manifest, data, zookeeper, port, http_port, redis_port, demo or exit_after_demo, exit_after_demo)
    try:
        code = asyncio.run(run_until_stopped(options, screen, launcher))
    except ConfigurationError as error:
        code = _fail(error, EXIT_CONFIGURATION)
    except KVClusterError as error:
        code = _fail(error, EXIT_FAILED)
    finally:
        launcher.close()
    raise typer.Exit(code)


def _fail(error: KVClusterError, code: int) -> int:
    sys.stderr.write(f"kvlocal: {' '.join(str(error).split())}\n")
    return code


def main() -> None:
    """Entry point of `kvlocal`."""
    app()


if __name__ == "__main__":
    main()
