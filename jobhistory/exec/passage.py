"""A stream of a command on its way through this process: passed on byte for byte, and seen.

It is a pipe, or a terminal where ours is one, so that the command writes as it would without us: in lines, in
colours. What it holds is bounded, so that a command that writes faster than its reader reads has to wait.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import termios
import threading
from collections.abc import Callable, Iterator

Write = Callable[[int, bytes], None]
"""Writes all the bytes to a descriptor."""

_CHUNK_BYTES = 64 * 1024
# The most that a pipe holds, by Linux's /proc/sys/fs/pipe-max-size.
_PIPE_BYTES = 2**20
# For each character that is given out: so many that the half of them is enough, whatever their width.
_BYTES_KEPT = 8
_log = logging.getLogger("jobhistory")


def write_all(target: int, data: bytes) -> None:
    """Write all of it, also where the descriptor was set not to block by whoever shares it. Raises OSError."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(target, left) :]
        except BlockingIOError:
            select.select([], [target], [])


def open_like(target: int) -> tuple[int, int]:
    """Our end and the command's of a stream that stands in for the descriptor."""
    if not os.isatty(target):
        return os.pipe()
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, termios.tcgetwinsize(target))
    modes = termios.tcgetattr(theirs)
    modes[1] &= ~termios.OPOST  # nothing is added to a line's end here; the real terminal does that
    termios.tcsetattr(theirs, termios.TCSANOW, modes)
    return ours, theirs


class Passage(threading.Thread):
    """Passes a stream on until it ends, or the target can take no more: then whoever writes to it gets SIGPIPE.

    Args:
        source: our end of the stream; closed when it is done.
        target: where it goes.
        over: turns readable when nothing more is to be waited for; what is there still passes, up to what a
            pipe holds, for others than the command may go on writing.
        write: does the writing.
        see: sees each piece after it was written.
        done: called at the end.
        lossy: where the target takes nothing, but for a reader that is gone, leave out what it does not take, and
            go on: a full disk for its messages is no reason to stop who writes them.
    """

    def __init__(
        self,
        source: int,
        target: int,
        over: int,
        *,
        write: Write,
        see: Callable[[bytes], object],
        done: Callable[[], object],
        lossy: bool = False,
    ) -> None:
        super().__init__(name=f"jobhistory passage to {target}", daemon=True)
        self.ended = False
        self._source = source
        self._target = target
        self._over = over
        self._write = write
        self._see = see
        self._done = done
        self._lossy = lossy

    def run(self) -> None:
        """Pass it on."""
        try:
            for chunk in self._chunks():
                if not self._passed_on(chunk):
                    return
                self._see(chunk)
        finally:
            os.close(self._source)
            self.ended = True
            self._done()

    def _passed_on(self, chunk: bytes) -> bool:
        """Write it, and say whether to go on."""
        try:
            self._write(self._target, chunk)
        except OSError as error:
            if error.errno == errno.EPIPE:
                return False
            _log.warning("the command's output cannot be passed on: %s", error.strerror)
            return self._lossy
        return True

    def _chunks(self) -> Iterator[bytes]:
        left = None
        wait = select.poll()  # takes descriptors of any number
        wait.register(self._source, select.POLLIN)
        wait.register(self._over, select.POLLIN)
        while left is None or left > 0:
            ready = {descriptor for descriptor, _ in wait.poll()}
            if left is None and self._over in ready:
                left = _PIPE_BYTES
            if self._source not in ready:
                return
            try:
                chunk = os.read(self._source, _CHUNK_BYTES)
            except OSError:  # a terminal's end
                return
            if not chunk:
                return
            yield chunk
            if left is not None:
                left -= len(chunk)


class Tail:
    """The end of a stream, as text of at most `characters`; safe to read while it grows."""

    def __init__(self, characters: int) -> None:
        self._characters = characters
        self._kept = b""
        self._cut = False

    def see(self, chunk: bytes) -> None:
        """Take the next piece."""
        seen = self._kept + chunk
        self._kept = seen[-_BYTES_KEPT * self._characters :]
        self._cut = self._cut or len(seen) > len(self._kept)

    def text(self, redact: Callable[[str], str]) -> str:
        """The end, redacted, from the start of a line where one starts in it."""
        kept = self._kept.decode(errors="replace")
        text = redact(kept)
        if self._cut:
            # What the cut left of a secret is no longer known as one; it is in the first half, if anywhere.
            text = text[len(redact(kept[: len(kept) // 2])) :]
        elif len(text) <= self._characters:
            return text
        text = text[-self._characters :]
        return text.partition("\n")[2] or text
