"""Settings of a process: flags over KV_* environment variables over defaults; an unusable one ends it with exit code 2.

    class NodeSettings(Settings):
        '''A database node.'''
        pod: str = Field(description="this pod's name")      # --pod, KV_POD
        grpc_port: int = GRPC_PORT                           # --grpc-port, KV_GRPC_PORT

    settings = load_settings(NodeSettings, sys.argv[1:])

Secrets are never settings: they come as files.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from kvcommon.errors import ConfigurationError

PREFIX = "KV_"
EXIT_CONFIGURATION = 2


class Settings(BaseModel):
    """The base of each role's settings; fields are plain scalars, their docstring texts are the help."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SettingsT = TypeVar("SettingsT", bound=Settings)


def flag_of(name: str) -> str:
    """The flag of a field: `grpc_port` is `--grpc-port`."""
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """The environment variable of a field: `grpc_port` is `KV_GRPC_PORT`."""
    return PREFIX + name.upper()


def load_settings(
    settings_class: type[SettingsT], argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> SettingsT:
    """Settings from flags and environment; on a bad one print one sentence on stderr and exit 2.

    `--help` prints the flags and exits 0. `argv` is sys.argv[1:] and `environment` os.environ unless given.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"--help", "-h"} & set(arguments):
        sys.stdout.write(help_text(settings_class) + "\n")
        raise SystemExit(0)
    try:
        return parse_settings(settings_class, arguments, os.environ if environment is None else environment)
    except ConfigurationError as error:
        exit_configuration(error)


def exit_configuration(error: ConfigurationError) -> NoReturn:
    """End the process as a configuration error asks: its text as one line on stderr, exit code 2."""
    sys.stderr.write(" ".join(str(error).split()) + "\n")
    raise SystemExit(EXIT_CONFIGURATION)


def parse_settings(settings_class: type[SettingsT], argv: Sequence[str], environment: Mapping[str, str]) -> SettingsT:
    """Settings from these flags and this environment.

    Raises:
        ConfigurationError: naming the setting, its value and what to do.

    """
    flags = _parse_flags(settings_class, argv)
    values: dict[str, str] = {}
    for name in settings_class.model_fields:
        if name in flags:
            values[name] = flags[name]
        elif variable_of(name) in environment:
            values[name] = environment[variable_of(name)]
    try:
        return settings_class.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_sentence(settings_class, error.errors()[0], from_flag=flags)) from None


def help_text(settings_class: type[Settings]) -> str:
    """What `--help` prints: each flag with its variable, default and meaning."""
    lines = [
        " ".join((settings_class.__doc__ or settings_class.__name__).split()),
        "",
        "Settings (flags over environment):",
    ]
    for name, field in settings_class.model_fields.items():
        default = (
            "required" if field.is_required() else f"default {_shown(field.get_default(call_default_factory=True))}"
        )
        lines.append(f"  {flag_of(name):<24} {variable_of(name):<24} {field.description or ''} ({default})")
    return "\n".join(lines)


def _shown(default: Any) -> str:
    return "none" if default in (None, "", PydanticUndefined) else str(default)


def _parse_flags(settings_class: type[Settings], argv: Sequence[str]) -> dict[str, str]:
    """Flags as `--name value` or `--name=value`; a boolean's value may be left out, `--no-name` sets it false."""
    by_flag = {flag_of(name): (name, field) for name, field in settings_class.model_fields.items()}
    negated = {"--no-" + flag[2:]: name for flag, (name, field) in by_flag.items() if _is_bool(field)}
    values: dict[str, str] = {}
    rest = list(argv)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag in negated and not equals:
            values[negated[flag]] = "false"
            continue
        if flag not in by_flag:
            raise ConfigurationError(
                f"unknown argument {flag!r}: this program takes {', '.join(sorted(by_flag))}; see --help"
            )
        name, field = by_flag[flag]
        if not equals:
            if _is_bool(field) and (not rest or rest[0].startswith("--")):
                value = "true"
            elif not rest:
                raise ConfigurationError(f"{flag} has no value: write {flag} <value>")
            else:
                value = rest.pop(0)
        values[name] = value
    return values


def _is_bool(field: FieldInfo) -> bool:
    annotation = field.annotation
    if get_origin(annotation) in (Union, UnionType):
        return bool in get_args(annotation)
    return annotation is bool


def _sentence(settings_class: type[Settings], error: ErrorDetails, from_flag: Mapping[str, str]) -> str:
    """One sentence for a person from pydantic's finding."""
    if not error["loc"]:  # a check over several settings: its own text says which
        return error["msg"].removeprefix("Value error, ")
    name = str(error["loc"][0])
    field = settings_class.model_fields[name]
    meaning = f" ({field.description})" if field.description else ""
    if error["type"] == "missing":
        return f"{flag_of(name)} is not set{meaning}: give {flag_of(name)} <value> or set {variable_of(name)}"
    source = flag_of(name) if name in from_flag else variable_of(name)
    problem = error["msg"].removeprefix("Value error, ")
    return f"{source} is {error['input']!r}{meaning}: {problem[0].lower()}{problem[1:]}"
