"""The command `docre-pretrain`: finds libtorch and becomes the program."""

from __future__ import annotations

import os
import signal
import sys

from ._errors import InstallationError
from ._installation import command

# What the program itself ends with when the machine fails it.
FAILED = 74


def main() -> int:
    """Become the program, or say in one sentence why that is not possible."""
    try:
        program, environment = command()
        # Python ignores these two, and the program would inherit that.
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        os.execve(program, ["docre-pretrain", *sys.argv[1:]], environment)
    except InstallationError as error:
        print(f"error: {error.message}\n\nhint: {error.hint}", file=sys.stderr)
    except OSError as error:
        print(f"error: the program cannot be started: {error}", file=sys.stderr)
    return FAILED
