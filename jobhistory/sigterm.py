"""SIGTERM as a request to stop, for all in this process that watch for it at the same time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

Tell = Callable[[str], object]
"""Called with "SIGTERM" in the midst of the main thread's work: it may take no lock, and write nothing."""


class _Sigterm:
    """The one handler; it is installed with the first watcher, and taken away behind the last."""

    def __init__(self) -> None:
        self._watchers: list[Tell] = []
        self._before: Any = signal.SIG_DFL
        self._pid = os.getpid()

    def watch(self, tell: Tell) -> None:
        """Have `tell` called where SIGTERM comes, instead of what it meant before.

        Raises ValueError outside of the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            message = "handle_sigterm=True works in the main thread only: Python handles signals there"
            raise ValueError(message)
        self._forget_the_parents()
        if not self._is_installed():
            # None where C code installed it, which Python cannot do again.
            self._before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
            signal.signal(signal.SIGTERM, self._receive)
        self._watchers.append(tell)

    def unwatch(self, tell: Tell) -> None:
        """Take `tell` out, if it is in; the last one gives back what SIGTERM meant before."""
        if tell in self._watchers:
            self._watchers.remove(tell)
        # In another thread it stays, and hands on what comes. A handler installed since is left alone.
        if not self._watchers and threading.current_thread() is threading.main_thread() and self._is_installed():
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._forget_the_parents()
        for tell in self._watchers:
            tell("SIGTERM")
        if self._watchers:
            return
        if callable(self._before):
            self._before(number, frame)
        else:
            signal.signal(number, self._before)
            signal.raise_signal(number)

    def _is_installed(self) -> bool:
        # Bound methods are equal, never identical.
        return bool(signal.getsignal(signal.SIGTERM) == self._receive)

    def _forget_the_parents(self) -> None:
        """A forked child inherits the handler, but not the work that its parent's watchers do."""
        if os.getpid() != self._pid:
            self._pid, self._watchers = os.getpid(), []


sigterm = _Sigterm()
