"""A line at the foot of the terminal that gives way to all that others write there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from jobhistory.exec.passage import write_all

_STDERR = 2
_EVERY = 0.25
_PATIENCE = 1.0
_WIDTH = 80
_ERASED = b"\r\x1b[K"


class LiveLine:
    """Shows `text()` on standard error, again and again, as a context manager; nothing where that is no terminal.

    It stands only below a line that has ended, never in the midst of one, and leaves the cursor at its start.
    A terminal that takes nothing (Ctrl-S) holds up nobody but who writes to it.
    """

    def __init__(self, text: Callable[[], str]) -> None:
        self.is_on = os.isatty(_STDERR) and os.environ.get("TERM") != "dumb"
        """Whether there is a terminal to show it on."""
        self._text = text
        self._line_ended = True
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show_until_over, name="jobhistory live line", daemon=True)

    def write(self, target: int, data: bytes) -> None:
        """Write what belongs to somebody else, all of it, to the descriptor. Raises OSError."""
        if not self.is_on or not os.isatty(target):
            write_all(target, data)
            return
        with self._lock:
            write_all(target, (_ERASED if self._line_ended else b"") + data)
            self._line_ended = data.endswith(b"\n")
            self._show()

    def say(self, text: str) -> None:
        """Write a line of our own, if anybody can be told."""
        start = "" if self._line_ended else "\n"
        with suppress(OSError):
            self.write(_STDERR, f"{start}jobhistory: {text}\n".encode(errors="backslashreplace"))

    def __enter__(self) -> Self:
        if self.is_on:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self.is_on and self._lock.acquire(timeout=_PATIENCE):
            with suppress(OSError):
                write_all(_STDERR, _ERASED if self._line_ended else b"")
            self._lock.release()

    def _show_until_over(self) -> None:
        while not self._over.wait(_EVERY):
            with self._lock:
                self._show()

    def _show(self) -> None:
        from rich.cells import set_cell_size

        if self._line_ended and not self._over.is_set():
            with suppress(OSError):
                width = os.get_terminal_size(_STDERR).columns or _WIDTH
                write_all(_STDERR, b"\r%b\r" % set_cell_size(self._text(), width - 1).encode())
