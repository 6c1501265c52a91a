"""How long: a duration on the command line, the same in every command."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from jobhistory.times import UNITS

_SECONDS = {unit: size for size, unit in UNITS} | {"w": 7 * 86400, "": 1}
_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)([wdhms]?)", re.ASCII)

METAVAR = "DURATION"
HELP = f"A {METAVAR} is seconds, or a number and its unit: 4w, 90d, 36h, 5m, 30s."
"""The epilog of every command that takes one."""


class Duration(click.ParamType[float]):
    """Seconds, or a number of weeks, days, hours, minutes or seconds, as HELP says."""

    name = "duration"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As every help has it."""
        del param, ctx
        return METAVAR

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401  as click has it
        """In seconds."""
        match = _FORM.fullmatch(value)
        seconds = float(match[1]) * _SECONDS[match[2]] if match else math.inf
        if seconds == math.inf:
            self.fail(f"{value!r} is no duration: 4w, 90d, 36h, 5m, 30s, or seconds", param, ctx)
        return seconds
