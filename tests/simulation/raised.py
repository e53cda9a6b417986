"""Where the code raised, for a reader: the frames of our own code, innermost last."""

import sys
import sysconfig
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 12  # frames; those further out are the simulation's own way into a process
_OTHERS = (sysconfig.get_path("stdlib"), "<")


def frames_of(error: BaseException) -> tuple[str, ...]:
    """One line for each frame of ours, and the innermost one whosever it is; what caused an error comes before it."""
    found: list[str] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        found += [*frames_of(cause), f"{type(cause).__name__}: {cause}, and then"]
    frames = list(traceback.extract_tb(error.__traceback__))
    kept = [f for f in frames if f is frames[-1] or _is_ours(f.filename)]
    found += [f"{_place(f.filename)}:{f.lineno} in {f.name}: {f.line}" for f in kept[-MOST:]]
    return tuple(found)


def _is_ours(file: str) -> bool:
    return not file.startswith(_OTHERS) and "site-packages" not in file


def _place(file: str) -> str:
    """From the repository's root on; of a copy of our packages from the copy's."""
    for root in (str(ROOT), *sorted(sys.path, key=len, reverse=True)):
        if root and file.startswith(f"{root}/"):
            return file[len(root) + 1 :]
    return file
