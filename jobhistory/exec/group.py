"""A command, the process group that it leads, and its streams on their way through."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from jobhistory.exec.passage import Passage, Write, open_like

NOT_EXECUTABLE, NOT_FOUND, SIGNALLED = 126, 127, 128
"""Exit codes, those of a shell: it cannot be run; there is none; signal n killed it, 128 + n."""
STDOUT, STDERR = 1, 2

_log = logging.getLogger("jobhistory")
_PROC = Path("/proc")
_DEAD = {"Z", "X"}

Events = SimpleQueue[int | None]
"""What wakes whoever waits for a command: the number of a signal, or None."""


def signal_name(number: int) -> str:
    """SIGTERM for 15; `signal 35` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


class Group:
    """The command, its process group, and its streams on their way through.

    Args:
        command: the program and its arguments.
        environment: what it finds in its environment beside what is in ours.
        sees: the descriptors of the streams that pass through, and who sees what passes.
        write: writes what passes.
        events: gets None when the command has ended, and when a stream has.

    Raises OSError where the command cannot be run.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        sees: Mapping[int, Callable[[bytes], object]],
        *,
        write: Write,
        events: Events,
    ) -> None:
        self.program = Path(command[0]).name
        self._events = events
        self._is_ours = True
        self._over, self._over_once_closed = os.pipe()
        ends = {target: open_like(target) for target in sees}
        try:
            self._process = _started(
                command,
                env=os.environ | environment,
                stdout=ends[STDOUT][1] if STDOUT in ends else None,
                stderr=ends[STDERR][1],
                close_fds=False,  # what is open for it, as by <(...), is its own; what we open is not inheritable
                start_new_session=True,
            )
        except OSError:
            for descriptor in (self._over, self._over_once_closed, *(ours for ours, _ in ends.values())):
                os.close(descriptor)
            raise
        finally:
            for _, theirs in ends.values():
                os.close(theirs)
        self._passages = [
            Passage(ends[target][0], target, self._over, write=write, see=see, done=self._wake, lossy=target == STDERR)
            for target, see in sees.items()
        ]
        for thread in (threading.Thread(target=self._await, name="jobhistory command", daemon=True), *self._passages):
            thread.start()

    @property
    def ended(self) -> bool:
        """Whether the command has ended; what it started may go on."""
        return self._process.returncode is not None

    @property
    def lives(self) -> bool:
        """Whether anybody in the group does; who died and was waited for by nobody counts only where no /proc tells."""
        if not self.send(0):
            return False
        states = _states(self._process.pid)
        return states is None or not states <= _DEAD

    @property
    def exit_code(self) -> int:
        """The exit code of a command that has ended, as a shell gives it."""
        code: int = self._process.returncode
        return code if code >= 0 else SIGNALLED - code

    @property
    def killed_by(self) -> str | None:
        """The signal that ended it, if one did."""
        return signal_name(-self._process.returncode) if self._process.returncode < 0 else None

    @property
    def passing(self) -> bool:
        """Whether something may still pass through."""
        return any(not passage.ended for passage in self._passages)

    def send(self, number: int) -> bool:
        """Send a signal to the whole group; 0 is none. False where there is nobody who could get it."""
        try:
            if self._is_ours:
                os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            _log.warning("what runs in %s as another user cannot be stopped", self.program)
            return False
        return self._is_ours

    def suspend(self) -> None:
        """Stop the group and this process, as Ctrl-Z does, until somebody lets this process continue."""
        self.send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self.send(signal.SIGCONT)

    def let_go(self) -> None:
        """Send no more signals: the group's number may soon be another's."""
        self._is_ours = False

    def hang_up(self) -> None:
        """Let pass what is there, and wait for no more."""
        if self._over_once_closed >= 0:
            os.close(self._over_once_closed)
            self._over_once_closed = -1

    def close(self) -> None:
        """Leave nothing behind: a command that runs is killed."""
        if not self.ended:
            self.send(signal.SIGKILL)
        self.hang_up()
        if not self.passing:
            os.close(self._over)

    def _await(self) -> None:
        self._process.wait()
        self._wake()

    def _wake(self) -> None:
        self._events.put(None)


def _started(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401  those of Popen
    """The process of a command, as execvp(3) starts it: what the system cannot run is a script without its `#!`."""
    try:
        return subprocess.Popen(command, **options)  # noqa: S603  what this is for
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        script = shutil.which(command[0]) or command[0]
        return subprocess.Popen(["/bin/sh", script, *command[1:]], **options)  # noqa: S603  as above


def _states(group: int) -> set[str] | None:
    """The states of a group's processes, None where they cannot be known (proc_pid_stat(5))."""
    states = set()
    for stat in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # gone since
            state, _, its_group, *_ = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(its_group) == group:
                states.add(state)
    return states if _PROC.joinpath("self/stat").exists() else None
