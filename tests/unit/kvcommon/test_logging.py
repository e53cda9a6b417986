import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from kvcommon.errors import ConfigurationError
from kvcommon.logging import configure_logging


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_an_event_is_one_json_line_with_role_bound_values_level_and_time() -> None:
    out = io.StringIO()
    configure_logging("kvnode", stream=out, environment={}, pod="c-p0-0")
    structlog.get_logger().info("started", epoch=3)
    line = json.loads(out.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "started", "epoch": 3, "role": "kvnode", "pod": "c-p0-0", "level": "info"}


def test_the_standard_librarys_loggers_come_out_in_the_same_form() -> None:
    out = io.StringIO()
    configure_logging("kvnode", stream=out, environment={})
    logging.getLogger("grpc").warning("slow %s", "peer")
    line = json.loads(out.getvalue())
    assert (line["event"], line["logger"], line["level"], line["role"]) == ("slow peer", "grpc", "warning", "kvnode")


def test_an_exception_stays_on_its_line() -> None:
    out = io.StringIO()
    configure_logging("kvnode", stream=out, environment={})
    try:
        raise ValueError("torn")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("x").exception("failed too")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert "ValueError: torn" in first["exception"]
    assert "ValueError: torn" in second["exception"]


def test_the_level_is_kv_log_level() -> None:
    out = io.StringIO()
    configure_logging("kvnode", stream=out, environment={"KV_LOG_LEVEL": "error"})
    structlog.get_logger().warning("unheard")
    logging.getLogger("x").warning("unheard")
    assert out.getvalue() == ""


def test_the_console_format_is_for_a_person() -> None:
    out = io.StringIO()
    configure_logging("kvnode", stream=out, environment={"KV_LOG_FORMAT": "console"})
    structlog.get_logger().info("started", epoch=3)
    assert "started" in out.getvalue()
    assert "epoch=3" in out.getvalue()
    assert not out.getvalue().startswith("{")


@pytest.mark.parametrize("name", ["KV_LOG_LEVEL", "KV_LOG_FORMAT"])
def test_an_unknown_level_or_format_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is 'loud'"):
        configure_logging("kvnode", stream=io.StringIO(), environment={name: "loud"})
