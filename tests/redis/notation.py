"""Reads the tables of commands and replies; their notation is described in tables/README.md."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TABLES = Path(__file__).parent / "tables"
_TOKEN = re.compile(rb"\s*(%?\[|\]|,|nilarray|nil|null|:-?\d+|\"(?:[^\"\\]|\\.)*\")")
_WORD = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|[^\s"]+)""")
_CONSTANTS = {b"nil": b"$-1\r\n", b"nilarray": b"*-1\r\n", b"null": b"_\r\n"}


class TableError(Exception):
    """A table that can't be read: file, line and why."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One reply as the table has it: exact bytes, or a pattern for bytes that differ between servers."""

    text: str
    exact: bytes | None = None
    pattern: re.Pattern[bytes] | None = None
    closed: bool = False  # not a reply: the server ends the connection

    def fits(self, reply: bytes) -> bool:
        """Whether these raw bytes are the reply."""
        if self.pattern is not None:
            return self.pattern.fullmatch(reply) is not None
        return reply == self.exact


@dataclass(frozen=True, slots=True)
class Step:
    """What a client sends, and the replies to it."""

    text: str
    sent: bytes
    replies: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A sentence about what is shown, and the steps that show it, on an empty database and a new connection."""

    file: str
    title: str
    steps: tuple[Step, ...]
    marks: tuple[tuple[str, str], ...] = ()

    @property
    def modes(self) -> frozenset[str]:
        """`plain`, `cluster` or both."""
        named = {mark for mark, _ in self.marks} & {"plain", "cluster"}
        return frozenset(named or {"plain", "cluster"})

    @property
    def one_server(self) -> bool:
        """Whether it is only so of a server that has all keys itself."""
        return any(mark == "one" for mark, _ in self.marks)

    @property
    def since(self) -> tuple[int, ...]:
        """The oldest Redis that knows this; empty: any."""
        return next((version(text) for mark, text in self.marks if mark == "since"), ())

    @property
    def only_written(self) -> bool:
        """Whether Redis differs on purpose."""
        return any(mark == "written" for mark, _ in self.marks)


def version(text: str) -> tuple[int, ...]:
    """`7.0.15` as (7, 0, 15)."""
    return tuple(int(part) for part in text.split("."))


def command(*arguments: bytes) -> bytes:
    """A command as clients write it."""
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%s\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(parts)


def read_tables() -> list[Case]:
    """Every case of every table."""
    return [case for path in sorted(TABLES.glob("*.txt")) for case in read_table(path.stem, path.read_text())]


def read_table(file: str, text: str) -> list[Case]:
    """The cases of one table. Raises TableError."""
    cases: list[Case] = []
    blocks = re.split(r"^== ", text, flags=re.MULTILINE)
    for block in blocks[1:]:
        title, *lines = block.splitlines()
        marks = [line for line in lines if line.startswith("@")]
        said = [line for line in lines if line.strip() and not line.startswith(("@", "# "))]
        pairs = [mark[1:].partition(" ") for mark in marks]
        try:
            steps = _steps(said)
        except (ValueError, SyntaxError) as error:
            raise TableError(f"{file}: {title}: {error}") from error
        cases.append(Case(file, title, steps, tuple((name, rest) for name, _, rest in pairs)))
    return cases


def _steps(lines: Sequence[str]) -> tuple[Step, ...]:
    grouped: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith(">"):
            grouped.append((line, []))
        elif grouped:
            grouped[-1][1].append(line)
        else:
            raise ValueError(f"a reply before any command: {line}")
    return tuple(Step(sent, _sent(sent), tuple(_expected(reply) for reply in replies)) for sent, replies in grouped)


def _sent(line: str) -> bytes:
    if line.startswith(">> "):
        return _unquote(line[3:].encode())
    words = [match.group(1) for match in _WORD.finditer(line[2:])]
    return command(*(_unquote(w.encode()) if w.startswith('"') else w.encode() for w in words))


def _expected(line: str) -> Expected:
    if line == "(closed)":
        return Expected(line, closed=True)
    if line == "(any)":
        return Expected(line, pattern=re.compile(rb"[^-].*", re.DOTALL))
    if line == "(error)":
        return Expected(line, pattern=re.compile(rb"-.*", re.DOTALL))
    if line.startswith("(like "):
        return Expected(line, pattern=re.compile(line[len("(like ") : -1].encode("latin-1"), re.DOTALL))
    if line[0] in "+-:":
        return Expected(line, exact=line.encode() + b"\r\n")
    raw, rest = _value(line.encode())
    if rest.strip():
        raise ValueError(f"{rest!r} is left of the reply {line}")
    return Expected(line, exact=raw)


def _value(text: bytes) -> tuple[bytes, bytes]:
    """The raw bytes of the value that the text begins with, and the rest of the text."""
    match = _TOKEN.match(text)
    if match is None:
        raise ValueError(f"no reply begins with {text!r}")
    token, rest = match.group(1), text[match.end() :]
    if token in _CONSTANTS:
        return _CONSTANTS[token], rest
    if token.startswith(b":"):
        return token + b"\r\n", rest
    if token.startswith(b'"'):
        value = _unquote(token)
        return b"$%d\r\n%s\r\n" % (len(value), value), rest
    items: list[bytes] = []
    while not rest.lstrip().startswith(b"]"):
        item, rest = _value(rest)
        items.append(item)
        rest = rest.lstrip().removeprefix(b",")
    head = b"%%%d\r\n" % (len(items) // 2) if token.startswith(b"%") else b"*%d\r\n" % len(items)
    return head + b"".join(items), rest.lstrip()[1:]


def _unquote(text: bytes) -> bytes:
    value: bytes = ast.literal_eval("b" + text.decode())
    return value
