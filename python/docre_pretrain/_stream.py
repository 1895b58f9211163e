"""One process of the program, which answers lines with lines.

Three threads serve it: one writes what waits, one reads answers and gives them to those who wait,
and one keeps the last lines of the standard error. No thread waits for another, so no pipe that is
full can stop them all.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import queue
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from ._errors import DocumentError, InstallationError, ProcessError
from ._results import Result

LOGGER = logging.getLogger("docre_pretrain")

# Lines of the standard error that are kept.
KEPT_LINES = 200

# How long a process that has closed its output, or its input, may take to end.
SECONDS_TO_END = 10.0

# Variables by which a launcher tells a process its rank. The program runs as one process here, also
# within a rank of the caller's.
LAUNCHERS = re.compile(
    "OMPI_|PMI|SLURM_|MASTER_|TORCHELASTIC_|DOCRE_(LAUNCHED|WORLD)$|(WORLD_SIZE|(LOCAL_)?RANK)$"
)

Answered: TypeAlias = Callable[[Mapping[str, Any]], Result]
"""What makes a result of an answer."""


def without_launchers(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which no launcher has set a rank."""
    return {name: value for name, value in environment.items() if not LAUNCHERS.match(name)}


def process_error(code: int, stderr: Sequence[str]) -> ProcessError:
    """Return the error of a process that ended with this exit code and these last lines."""
    text = "\n".join(stderr)
    starts = [at for at, line in enumerate(stderr) if re.match(r"(\[[^]]*\] )?error: ", line)]
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = "was the memory enough?" if -code == signal.SIGKILL else None
        return ProcessError(f"the program was ended by {name}", hint, code=code, stderr=text)
    if not starts:
        last = f": {stderr[-1]}" if stderr else ""
        return ProcessError(
            f"the program ended with exit code {code}{last}", code=code, stderr=text
        )
    said = "\n".join(stderr[starts[-1] :]).split("error: ", 1)[1]
    message, _, hint = said.partition("\n\nhint: ")
    return ProcessError(message.strip(), hint.strip() or None, code=code, stderr=text)


class Stream:
    """The process and what waits for its answers."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process."""
        self._lock = threading.Lock()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._waiting: deque[tuple[Future[Result], Answered]] = deque()
        self._answers = 0
        self._end: ProcessError | None = None
        self._closing = False
        self._stopped = False
        self._stderr: deque[str] = deque(maxlen=KEPT_LINES)
        self._owner = os.getpid()
        try:
            # A group of its own: Ctrl-C at the terminal is for Python, which then ends the process.
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=without_launchers(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise InstallationError(f"the program cannot be started: {error}") from error
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._writer = threading.Thread(target=self._write, daemon=True)
        for thread in (self._listener, self._reader, self._writer):
            thread.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def send(self, line: bytes, answered: Answered) -> Future[Result]:
        """Send a line, and return the future of its result. Does not wait."""
        future: Future[Result] = Future()
        if os.getpid() != self._owner:
            future.set_exception(
                ProcessError(
                    "this model was loaded by the parent of this process, which alone can use it",
                    "load the model after the fork, in the process that uses it",
                )
            )
            return future
        with self._lock:
            end = closed() if self._closing else self._end
            if not end:
                self._waiting.append((future, answered))
                self._lines.put(line)
        if end:
            # A copy: each raise would make the traceback of one error longer.
            future.set_exception(copy.copy(end))
        return future

    def _write(self) -> None:
        stdin = self._process.stdin
        assert stdin
        # A process that ends breaks the pipe; its reader then says what has happened.
        with contextlib.suppress(OSError):
            while (line := self._lines.get()) is not None:
                stdin.write(line)
                if self._lines.empty():
                    stdin.flush()
        with contextlib.suppress(OSError):
            stdin.close()

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout
        problem = None
        for line in stdout:
            problem = self._take(line)
            if problem:
                break
        self._finish(problem)

    def _take(self, line: bytes) -> str | None:
        """Give an answer to the one who waits for it, or return what is wrong with it."""
        try:
            answer = json.loads(line)
            number = answer["line"]
        except (ValueError, TypeError, KeyError):
            return f"the program answered with what is no answer: {line[:80]!r}"
        with self._lock:
            self._answers += 1
            if number != self._answers or not self._waiting:
                return f"the program answered line {number} in place of line {self._answers}"
            future, answered = self._waiting.popleft()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(answered(answer))
            except DocumentError as error:
                future.set_exception(error)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                wrong = f"the answer to line {number} has another form: {error!r}"
                future.set_exception(ProcessError(wrong))
                return wrong
        return None

    def _listen(self) -> None:
        stderr = self._process.stderr
        assert stderr
        for raw in stderr:
            line = raw.decode(errors="replace").rstrip()
            self._stderr.append(line)
            level = logging.WARNING if line.startswith("warning: ") else logging.DEBUG
            LOGGER.log(level, "%s", line.removeprefix("warning: "))

    def _finish(self, problem: str | None) -> None:
        """Take leave of the process, and tell all who wait why there is no answer."""
        if problem:
            self._kill()
        try:
            code = self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._kill()
            code = self._process.wait()
        self._listener.join(SECONDS_TO_END)
        if problem:
            end = ProcessError(problem, "is the program of another release?", code=code)
        elif self._stopped or (self._closing and code == 0 and not self._waiting):
            end = closed()
        else:
            end = process_error(code, list(self._stderr))
        with self._lock:
            self._end = end
            waiting, self._waiting = self._waiting, deque()
        for future, _ in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(copy.copy(end))
        self._lines.put(None)
        self._writer.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    def close(self) -> None:
        """End the input, and wait until all lines are answered and the process has ended."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._closing = True
        self._lines.put(None)
        while True:
            before = self._answers
            self._reader.join(SECONDS_TO_END)
            if not self._reader.is_alive():
                return
            if not self._waiting and before == self._answers:
                self._stopped = True
                self._kill()

    def stop(self) -> None:
        """End the process at once; who waits gets an error. Does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._closing = self._stopped = True
        self._kill()
        self._reader.join(SECONDS_TO_END)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def closed() -> ProcessError:
    """Return the error of a model that was closed."""
    return ProcessError("the model is closed", "load it again")
