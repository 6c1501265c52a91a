"""Singer: a tap's sync as a job, in this process. Needs `pip install 'jobhistory[singer]'`, Meltano's SDK.

    with history.track(users) as run:
        sync_tap(run, TapGitHub(config=config))

Each RECORD that the tap writes is an entity inserted, since Singer tells no update from an insert
(https://github.com/singer-io/getting-started/blob/master/docs/SPEC.md); records in BATCH files are not counted. What
the tap raises ends the job as FAILED; asked to stop, it stops behind a record. Its messages go where they would go
without this: to standard output, or to the `message_writer` that it was given.

A tap in a process of its own, whatever it is made with: `jobhistory exec --singer`.
"""

from __future__ import annotations

from typing import Any

try:
    from singer_sdk import Tap
    from singer_sdk.singerlib import SingerMessageType
except ImportError as error:
    message = "jobhistory.integrations.singer needs singer-sdk: pip install 'jobhistory[singer]'"
    raise ImportError(message, name=error.name) from error

from jobhistory.run import Run


def sync_tap(run: Run, tap: Tap) -> None:
    """`tap.sync_all()` for the job of a Run: reports each record, and stops when asked to.

    Raises what the tap raises, JobCancelled, LostJobError.
    """
    usual = tap.message_writer
    tap.message_writer = _Counting(run, usual)
    try:
        tap.sync_all()
    finally:
        tap.message_writer = usual


class _Counting:
    """The tap's own writer, which counts behind each record: what was not written is not counted."""

    def __init__(self, run: Run, usual: Any) -> None:  # noqa: ANN401  a writer of any encoding
        self._run = run
        self._usual = usual

    def write_message(self, message: Any) -> None:  # noqa: ANN401  a message of that encoding
        """Write it, count it."""
        self._usual.write_message(message)
        if message.type == SingerMessageType.RECORD:
            self._run.report(inserted=1)
