"""The first lines of every child process: die with the parent, then be the role.

Runs as `python -m kvlocal.child <parent pid> <module> <arguments...>`; imports nothing heavy itself.
"""

import ctypes
import importlib
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent's thread ends (prctl(2)); exit if that is already so."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died between fork and prctl: there will be no signal
        sys.exit(f"kvlocal: the process {parent} that started this one is gone")


def main() -> None:
    """Become the role that the command line names."""
    parent, module, *arguments = sys.argv[1:]
    die_with(int(parent))
    sys.argv = [module.partition(".")[0], *arguments]
    sys.exit(importlib.import_module(module).main())


if __name__ == "__main__":
    main()
