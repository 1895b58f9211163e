"""Runs any verb of the program to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque

from ._errors import InstallationError
from ._installation import command
from ._stream import KEPT_LINES, process_error


def run(
    *arguments: str | os.PathLike[str],
    quiet: bool = False,
    binary: str | os.PathLike[str] | None = None,
) -> str:
    """Run a verb of the program, and return what it printed as its result.

    Progress and warnings go to `sys.stderr` as they come, unless `quiet`. Raises `ProcessError`
    with the program's own sentence if its exit code is not 0 (75: stopped, to be resumed).

    >>> import docre_pretrain as docre
    >>> docre.run("--version").split()[0]
    'docre-pretrain'
    """
    program, environment = command(binary)
    words = [str(program), *(os.fspath(word) for word in arguments)]
    try:
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise InstallationError(f"the program cannot be started: {error}") from error
    kept: deque[str] = deque(maxlen=KEPT_LINES)

    def listen() -> None:
        for line in process.stderr or ():
            kept.append(line.rstrip())
            if not quiet:
                sys.stderr.write(line)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        result = process.stdout.read() if process.stdout else ""
        code = process.wait()
    except BaseException:
        # Asked as Ctrl-C asks: a run then leaves a checkpoint.
        process.terminate()
        process.wait()
        raise
    finally:
        listener.join()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
    if code != 0:
        raise process_error(code, list(kept))
    return result
