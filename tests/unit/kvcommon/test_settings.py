from typing import Literal

import pytest
from pydantic import Field, model_validator

from kvcommon.errors import ConfigurationError
from kvcommon.settings import Settings, load_settings, parse_settings


class Example(Settings):
    """A database node."""

    pod: str = Field(description="this pod's name")
    grpc_port: int = Field(default=7400, ge=0, le=65535)
    durability: Literal["fsync", "memory"] = "fsync"
    verbose: bool = False
    partition: int | None = None

    @model_validator(mode="after")
    def _check(self) -> "Example":
        if self.pod == "bad" and self.verbose:
            raise ValueError("--pod bad and --verbose don't go together: leave one out")
        return self


def test_flags_stand_over_environment_over_defaults() -> None:
    settings = parse_settings(
        Example, ["--grpc-port", "1", "--pod=c-p0-0"], {"KV_GRPC_PORT": "2", "KV_DURABILITY": "memory"}
    )
    assert (settings.pod, settings.grpc_port, settings.durability) == ("c-p0-0", 1, "memory")
    assert settings.partition is None


@pytest.mark.parametrize(
    ("argv", "verbose"),
    [([], False), (["--verbose"], True), (["--verbose", "false"], False), (["--no-verbose"], False)],
)
def test_a_booleans_value_may_be_left_out(argv: list[str], verbose: bool) -> None:
    assert parse_settings(Example, ["--pod", "a", *argv], {}).verbose is verbose


@pytest.mark.parametrize(
    ("argv", "environment", "sentence"),
    [
        ([], {}, "--pod is not set (this pod's name): give --pod <value> or set KV_POD"),
        (["--pod", "a", "--grpc-port", "x"], {}, "--grpc-port is 'x': input should be a valid integer"),
        (["--pod", "a"], {"KV_GRPC_PORT": "70000"}, "KV_GRPC_PORT is '70000': input should be less than or equal to"),
        (["--pod", "a"], {"KV_DURABILITY": "hope"}, "KV_DURABILITY is 'hope': input should be 'fsync' or 'memory'"),
        (["--pdo", "a"], {}, "unknown argument '--pdo': this program takes --durability, --grpc-port"),
        (["stray"], {}, "unknown argument 'stray'"),
        (["--grpc-port", "1", "--pod"], {}, "--pod has no value: write --pod <value>"),
        (["--pod", "bad", "--verbose"], {}, "--pod bad and --verbose don't go together: leave one out"),
    ],
)
def test_an_unusable_setting_is_named_with_value_and_remedy(
    argv: list[str], environment: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_settings(Example, argv, environment)
    assert str(raised.value).startswith(sentence)


def test_environment_of_others_is_not_ours() -> None:
    assert parse_settings(Example, ["--pod", "a"], {"KV_UNKNOWN": "1", "POD": "b"}).pod == "a"


def test_a_bad_setting_ends_the_process_with_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        load_settings(Example, [], {})
    assert raised.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_lists_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        load_settings(Example, ["--help"], {})
    assert raised.value.code == 0
    out = capsys.readouterr().out
    assert "--pod" in out
    assert "KV_POD" in out
    assert "default 7400" in out
