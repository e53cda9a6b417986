"""Coordination by URL."""

from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from kvcommon.errors import ConfigurationError
from kvcommon.numbers import ZOOKEEPER_PORT, ZOOKEEPER_SESSION
from kvcoord.contract import Coordination

EXAMPLES = "zookeeper://zk-0:2181,zk-1:2181,zk-2:2181/kvcluster/<cluster id> or sqlite:///absolute/path/coordination.db"


def open_coordination(url: str, *, session_timeout: float = ZOOKEEPER_SESSION) -> Coordination:
    """The coordination that a URL names, not started yet.

    `zookeeper://host[:port],.../path`: the path is where this cluster's nodes are, made if missing.
    `sqlite:///absolute/path`: one file shared by the processes of one machine, made if missing.
    `session_timeout` in seconds: how long a process that says nothing keeps its registration.

    Raises:
        ConfigurationError: any other URL.

    """
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise _unusable(url, "it takes no ?query and no #fragment")
    match parts.scheme:
        case "zookeeper":
            return _zookeeper(url, parts, session_timeout)
        case "sqlite":
            return _sqlite(url, parts, session_timeout)
        case _:
            raise _unusable(url, f"{parts.scheme or 'nothing'} is not a kind of coordination")


def _sqlite(url: str, parts: SplitResult, session_timeout: float) -> Coordination:
    if parts.netloc or not parts.path.strip("/") or parts.path.endswith("/"):
        raise _unusable(url, "it needs three slashes and the absolute path of a file")
    from kvcoord.sqlite import SqliteCoordination

    return SqliteCoordination(Path(parts.path), session_timeout=session_timeout)


def _zookeeper(url: str, parts: SplitResult, session_timeout: float) -> Coordination:
    servers = tuple(_server(url, server) for server in parts.netloc.split(","))
    path = parts.path
    if not path.strip("/") or path.endswith("/") or any(part in ("", ".", "..") for part in path.split("/")[1:]):
        raise _unusable(url, f"{path or 'no path'!r} is not a path of its own below the root")
    from kvcoord.zookeeper import ZookeeperCoordination

    return ZookeeperCoordination(servers, path, session_timeout=session_timeout)


def _server(url: str, server: str) -> tuple[str, int]:
    """host, host:port, or [IPv6]:port."""
    try:
        parts = urlsplit(f"//{server}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _unusable(url, f"{server!r} is not host:port ({error})") from error
    if not host or parts.username is not None or port == 0:
        raise _unusable(url, f"{server!r} is not host:port")
    return host, ZOOKEEPER_PORT if port is None else port


def _unusable(url: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"coordination URL {url!r} can't be used: {why}; write {EXAMPLES}")
