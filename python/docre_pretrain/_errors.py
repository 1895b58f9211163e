"""The errors of this package."""

from __future__ import annotations


class DocreError(Exception):
    """The base of all errors of this package. `str` of it is the whole message."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        """Keep the message and the way out."""
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message with its hint."""
        return f"{self.message}; hint: {self.hint}" if self.hint else self.message


class InstallationError(DocreError):
    """The program or its libtorch is missing, or does not fit."""


class DocumentError(DocreError, ValueError):
    """A document cannot be read or predicted. Others are not affected.

    `place` is its number in the list, from 0; `field` the part of the document, such as
    `vertexSet[3][0].pos`; each is None where it is not known.
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        field: str | None = None,
        title: str | None = None,
        place: int | None = None,
    ) -> None:
        """Keep what is known of the place."""
        super().__init__(message, hint)
        self.field = field
        self.title = title
        self.place = place

    def __str__(self) -> str:
        """Return the message with its place and hint."""
        document = "the document" if self.place is None else f"document {self.place}"
        title = f' ("{self.title}")' if self.title else ""
        field = f", {self.field}" if self.field else ""
        return f"{document}{title}{field}: {super().__str__()}"

    def __reduce__(self) -> tuple[object, ...]:
        """Keep all fields when the error is sent to another process."""
        return (type(self), (self.message, self.hint), self.__dict__)


class ProcessError(DocreError, RuntimeError):
    """The program ended with an error, or was ended.

    `code` is its exit code, negative for a signal, or None if it never started or was closed;
    `stderr` holds the last lines of what it said.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, code: int | None = None, stderr: str = ""
    ) -> None:
        """Keep exit code and output."""
        super().__init__(message, hint)
        self.code = code
        self.stderr = stderr

    def __reduce__(self) -> tuple[object, ...]:
        """Keep all fields when the error is sent to another process."""
        return (type(self), (self.message, self.hint), self.__dict__)
