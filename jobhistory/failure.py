"""What the exception that ended a job says of it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from jobhistory.errors import JobCancelled

_FRAMES = 20
# What is longer is cut before secrets are searched for, which takes time: far behind all that is stored, for
# the cut may go through a secret.
_SEARCHED_CHARACTERS = 2**20


def causes_of(error: BaseException | None) -> list[BaseException]:
    """The error, or in place of a group what is in it, at any depth; nothing for None."""
    causes, left = [], [] if error is None else [error]
    while left:
        cause = left.pop()
        if isinstance(cause, BaseExceptionGroup):
            left.extend(reversed(cause.exceptions))
        else:
            causes.append(cause)
    return causes


def means_stop(error: BaseException) -> bool:
    """Whether it means stop, not failure: what comes of Ctrl-C, exit(0) and a cancelled task."""
    if isinstance(error, SystemExit):
        return error.code in (0, None)
    # A task can only have been cancelled by a library that is loaded.
    names = (("asyncio", "CancelledError"), ("trio", "Cancelled"))
    tasks = tuple(getattr(sys.modules.get(module), name, ()) for module, name in names)
    return isinstance(error, (JobCancelled, KeyboardInterrupt, *tasks))


def described(error: BaseException) -> str:
    """The error as the last line of a traceback has it."""
    name, text = type(error).__name__, _shown(lambda: str(error))
    return f"{name}: {text}" if text else name


def details_of(error: BaseException) -> dict[str, str]:
    """Its type, message and traceback: the innermost frames, causes and groups with theirs."""
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "message": _shown(lambda: str(error)),
        "traceback": _shown(lambda: "".join(traceback.format_exception(error, limit=-_FRAMES))),
    }


def alone(error: BaseException) -> BaseException:
    """The error to be logged: with its causes, but without what was being handled when it was raised.

    That may be a worker's error, with secrets in its text.
    """
    cause: BaseException | None = error
    while cause is not None:
        cause.__suppress_context__ = True
        cause = cause.__cause__
    return error


def _shown(show: Callable[[], str]) -> str:
    """What it gives, cut; an error that cannot even be shown is reported all the same."""
    try:
        return show()[:_SEARCHED_CHARACTERS]
    except Exception:  # noqa: BLE001  as said
        return "(cannot be shown)"
