"""Measure every case in one run, print medians and ratios, and write them as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from benchmarks import cases, crowd, lightness, sizes
from benchmarks.data import Histories
from benchmarks.timing import Measured, in_turns

SMALL, MIDDLE, GREAT = 10**4, 10**6, 10**7
TURNS = 30_000
FEW, MANY = 100, 10_000


def all_cases(folder: Path, count: int, turns: int = TURNS) -> Iterator[cases.Case]:
    """Every case on a history of so many jobs; those that use up what they were given last for so many turns."""
    # At least 2,000 jobs each, so that every page there is can be full.
    histories = Histories(folder, count, min(FEW, count // 2_000))
    spread = Histories(folder, count, MANY)
    for each in (histories, spread):
        each.build()
    yield from chain(
        cases.reading(histories),
        cases.newest(spread),
        cases.waiting(histories, min(count, 100_000)),
        cases.writing("full", 1.25, 1.3, turns),
        cases.writing("relaxed", 1.5, 1.5, turns),
        cases.importing(min(count // 10, 10_000)),
        lightness.package(),
    )


def cases_of_size(folder: Path, count: int) -> Iterator[cases.Case]:
    """What a large history costs beside a small one; and in memory, where a dict that fits the cache costs nothing."""
    # So few connections that each has a whole page.
    large, small = Histories(folder, count, FEW), Histories(folder, SMALL, 60)
    small.build()
    spread = Histories(folder, count, MANY)
    yield from chain(
        cases.health(spread),
        sizes.flatness(large, small),
        sizes.cold(large),
        lightness.memory(min(count, MIDDLE), TURNS),
    )


def all_figures(folder: Path, count: int) -> Iterator[cases.Figure]:
    """What is no ratio of times."""
    yield from chain(sizes.space(folder, min(count, MIDDLE), FEW), crowd.crowd(seconds=10))


def main() -> None:
    """`python -m benchmarks [--full | --small] [--json FILE] [--folder FOLDER]`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", dest="count", action="store_const", const=GREAT, help=f"{GREAT:,} jobs")
    size.add_argument("--small", dest="count", action="store_const", const=SMALL, help=f"{SMALL:,} jobs")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "jobhistory-benchmarks")
    parser.add_argument("--seconds", type=float, default=3, help="for each case")
    options = parser.parse_args()
    count = options.count or MIDDLE
    options.folder.mkdir(parents=True, exist_ok=True)

    print(f"{count:,} jobs; Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    print(f"{'case':58} {'library':>11} {'floor':>11} {'ratio':>7} {'target':>7}")
    figures: list[dict[str, object]] = []
    met = 0
    timed = all_cases(options.folder, count)
    for case in timed if count == SMALL else chain(timed, cases_of_size(options.folder, count)):
        measured = in_turns(case, seconds=options.seconds)
        print(line(case, measured), flush=True)
        met += measured.ratio <= case.target
        figures.append(
            {
                "case": case.name,
                "seconds": measured.ours,
                "floor_seconds": measured.floor,
                "ratio": measured.ratio,
                "target": case.target,
            }
        )
    for figure in all_figures(options.folder, count):
        over = "  over" if figure.value > figure.target else ""
        print(f"{figure.name:58} {figure.value:21,.1f} {figure.unit:7} {figure.target:7.1f}{over}", flush=True)
        met += not over
        figures.append({"figure": figure.name, "value": figure.value, "target": figure.target})
    if options.json:
        options.json.write_text(json.dumps({"jobs": count, "figures": figures}, indent=1) + "\n")
    print(f"{met} of {len(figures)} targets met", file=sys.stderr)


def line(case: cases.Case, measured: Measured) -> str:
    """The case's row of the table."""
    mark = "" if measured.ratio <= case.target else "  over"
    ours, floor = (f"{seconds * 1e6:,.0f} us" for seconds in (measured.ours, measured.floor))
    return f"{case.name:58} {ours:>11} {floor:>11} {measured.ratio:7.2f} {case.target:7.2f}{mark}"


if __name__ == "__main__":
    main()
