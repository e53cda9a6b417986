"""Structured logs: one JSON line per event on stderr, or coloured text for a person.

Everything logs through `structlog.get_logger()`; the standard library's loggers (grpc, kazoo, aiohttp, kopf) come out in
the same form. Standard output is left to the program's own answers.
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

import structlog
from structlog.typing import Processor

from kvcommon.errors import ConfigurationError

LEVELS = ("debug", "info", "warning", "error")
QUIET_LOGGERS = ("kazoo", "aiohttp.access", "asyncio", "urllib3")

LogFormat = Literal["json", "console"]


def configure_logging(
    role: str, *, stream: TextIO | None = None, environment: Mapping[str, str] | None = None, **bound: object
) -> None:
    """Set logging up for this process; `role` and `bound` are on every line.

    KV_LOG_LEVEL: debug, info (default), warning or error. KV_LOG_FORMAT: json or console; without it, console on a
    terminal and JSON elsewhere. `stream` is stderr and `environment` os.environ unless given.

    Raises:
        ConfigurationError: a level or format that does not exist.

    """
    env = os.environ if environment is None else environment
    out = sys.stderr if stream is None else stream
    level = log_level(env)
    console = log_format(env, tty=out.isatty()) == "console"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _bind_static({"role": role, **bound}),
    ]
    structlog.configure(
        processors=[
            *shared,
            *([] if console else [structlog.processors.format_exc_info]),
            _renderer(console=console, colors=out.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(out, level, shared, console=console)


def log_level(environment: Mapping[str, str]) -> int:
    """The numeric level that KV_LOG_LEVEL names; ConfigurationError for an unknown one."""
    name = environment.get("KV_LOG_LEVEL", "info").lower()
    if name not in LEVELS:
        raise ConfigurationError(f"KV_LOG_LEVEL is {name!r}: set it to one of {', '.join(LEVELS)}")
    return logging.getLevelNamesMapping()[name.upper()]


def log_format(environment: Mapping[str, str], *, tty: bool) -> LogFormat:
    """The format that KV_LOG_FORMAT names, or the one that suits the stream."""
    name = environment.get("KV_LOG_FORMAT", "console" if tty else "json").lower()
    if name == "json":
        return "json"
    if name == "console":
        return "console"
    raise ConfigurationError(f"KV_LOG_FORMAT is {name!r}: set it to json or console")


def _bind_static(values: Mapping[str, object]) -> Processor:
    def bind(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        for key, value in values.items():
            event.setdefault(key, value)
        return event

    return bind


def _renderer(*, console: bool, colors: bool) -> Processor:
    if console:
        return structlog.dev.ConsoleRenderer(colors=colors)
    return structlog.processors.JSONRenderer(default=str)


def _route_standard_library(out: TextIO, level: int, shared: list[Processor], *, console: bool) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([] if console else [structlog.processors.format_exc_info]),
                _renderer(console=console, colors=out.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(level, logging.ERROR))
