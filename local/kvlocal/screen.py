"""What a person sees: aligned progress lines and one table. No decisions here."""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TextIO

WIDTH = 46  # of a progress line's text; the time stands after it


class Screen:
    """Writes lines for a person, progress with the seconds since it was made."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._began = time.monotonic()

    def line(self, text: str = "") -> None:
        """One line as it is."""
        print(text, file=self._out, flush=True)

    def title(self, text: str) -> None:
        """A heading, an empty line above it."""
        bold = ("\033[1m", "\033[0m") if self._out.isatty() else ("", "")
        self.line(f"\n{bold[0]}{text}{bold[1]}")

    def done(self, text: str) -> None:
        """A step that is done, and when."""
        self.line(f"  {text:<{WIDTH}} {time.monotonic() - self._began:5.1f} s")

    def said(self, text: str) -> None:
        """Something seen."""
        self.line(f"  {text}")

    def pairs(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names and values, aligned."""
        rows = list(rows)
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            self.line(f"  {name:<{width}}  {value}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns as wide as their widest cell."""
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        for row in (head, *rows):
            self.line("  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
