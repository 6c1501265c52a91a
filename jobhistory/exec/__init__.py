"""Any command as a job: run it, count what it says it synced, stop it when asked, record how it ended.

The command has a session and a process group of its own. So Ctrl-C and Ctrl-Z reach this process alone, which
passes them on to the whole group. It can read standard input, a terminal too (in the background, give it
another: no job control keeps it from taking what is typed), but it has no /dev/tty: what asks there for a
password fails at once, where as a background group it would be stopped and hang.

Standard input and output are the command's own, as if nobody stood between, unless its output is read for
counts, or shown on a terminal above a line that tells how the job stands. Standard error always passes
through, for its end is kept; a full disk behind it stops nobody. Each stream passes byte for byte; which of two
comes first may change. Other files that are open for the command, as a shell's <(...), are its own.

It is asked to stop by the signal that came here, else by SIGTERM; what is left of the group after the grace
is killed. Processes that left the group are let alone, and so are those that stay behind when the command
ends by itself; their output is waited for LINGER seconds and no longer.

Where this process is killed by SIGKILL, the command goes on until it next writes to what nobody reads any
more. Its job falls silent, and `jobhistory reap` ends it as that of a vanished worker.

execution.py   the job: what stops the command, and what is recorded of its end
group.py       the command and its process group
passage.py     its streams, on their way through
counts.py      what they say was synced
"""

from jobhistory.exec.execution import GRACE, LINGER, Execution
from jobhistory.exec.group import NOT_EXECUTABLE, NOT_FOUND, SIGNALLED

__all__ = ["GRACE", "LINGER", "NOT_EXECUTABLE", "NOT_FOUND", "SIGNALLED", "Execution"]
