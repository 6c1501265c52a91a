"""Hold every case, on a history of 10,000 jobs, to three times its target: `python -m benchmarks.bounds`.

That is for CI: a regression by an order of magnitude is found, and the noise of a busy machine is not. A case that
seems to be over its bound is measured again with more turns before it counts.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.__main__ import SMALL, all_cases
from benchmarks.cases import Case
from benchmarks.timing import in_turns

TIMES = 3
TRIES = (7, 35, 135)
"""Turns in each try."""


def ratio_within(case: Case, bound: float) -> float:
    """The case's ratio: the first that keeps to the bound, or else the last and most careful one."""
    for turns in TRIES:
        ratio = in_turns(case, seconds=0, at_least=turns).ratio
        if ratio <= bound:
            break
    return ratio


def main() -> None:
    """Print each case's ratio and bound; the exit code is 1 where one is over."""
    over = 0
    with tempfile.TemporaryDirectory() as folder:
        # Each try warms up with a turn more.
        for case in all_cases(Path(folder), SMALL, turns=sum(TRIES) + len(TRIES)):
            bound = TIMES * case.target
            ratio = ratio_within(case, bound)
            print(f"{case.name:58} {ratio:7.2f} {bound:7.2f}{'' if ratio <= bound else '  over'}", flush=True)
            over += ratio > bound
    sys.exit(over > 0)


if __name__ == "__main__":
    main()
