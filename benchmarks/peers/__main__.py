"""Measure the library and its peers in one run: `python -m benchmarks.peers`.

Every peer, and the library too, runs in a process of its own, so that none pays for another's imports and
garbage. They work in turns, one at a time, while the others wait: in each turn of an operation every one of them
makes one call that is not timed, then so many in a row that they take about 20 ms, timed in its own process (one
call, timed, where that takes longer). Who begins moves on by one each turn. A figure is the median of its turns; a
ratio is the median, over the turns, of the peer's time over the library's in the same turn.

All write with the same durability, to a file with a write-ahead log: each round begins by printing what SQLite
says of that on each peer's own connections.
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from benchmarks.data import jobs
from benchmarks.peers.child import CLASSES
from benchmarks.peers.peer import LIBRARY, TITLES, Durability
from benchmarks.peers.process import PeerProcess

TURN = 0.02
FEWEST_TURNS, MOST_TURNS = 3, 31


@attrs.frozen
class Round:
    """Operations on one history, with one durability."""

    jobs: int
    connections: int
    durability: Durability
    operations: tuple[str, ...]


ROUNDS = (
    Round(100_000, 50, "full", ("newest 10", "newest 100", "newest 1000", "get", "insert", "transition")),
    Round(10_000, 50, "relaxed", ("insert", "transition")),
    Round(10_000, 1_000, "full", ("latest",)),
)


@attrs.frozen
class Figure:
    """What one peer took for one operation: seconds, and how many times the library's."""

    operation: str
    peer: str
    seconds: float
    ratio: float

    def line(self) -> str:
        """Its row of the table."""
        return f"  {self.operation:13} {TITLES[self.peer]:15} {self.seconds * 1e6:12,.0f} us {self.ratio:9.2f}"


def measure(each: Round, names: Sequence[str], cache: Path, seconds: float) -> Iterator[list[Figure]]:
    """The figures of each operation, the library's first."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=cache)))
        history = folder / "jobs.ndjson"
        with history.open("w") as lines:
            for job in jobs(each.jobs, each.connections):
                print(json.dumps(job.to_dict(bookkeeping=True)), file=lines)
        for name in names:
            (folder / name).mkdir()
        peers = [opened.enter_context(PeerProcess(name, cache, folder / name, each.durability)) for name in names]
        for peer in peers:
            settings = peer.ask(jobs=str(history))
            print(f"  {TITLES[peer.name]:15} {', '.join(f'{name} {value}' for name, value in settings.items())}")
        for operation in each.operations:
            yield in_turns(operation, peers, seconds)


def in_turns(operation: str, peers: Sequence[PeerProcess], seconds: float) -> list[Figure]:
    """What each peer took for the operation, in turns for about so many seconds."""
    calls = {peer: _calls(peer, operation) for peer in peers}
    taken: dict[PeerProcess, list[float]] = {peer: [] for peer in peers}
    until = time.monotonic() + seconds
    for turn in range(MOST_TURNS):
        if turn >= FEWEST_TURNS and time.monotonic() > until:
            break
        begins = turn % len(peers)
        for peer in (*peers[begins:], *peers[:begins]):
            taken[peer].append(peer.ask(operation=operation, calls=calls[peer])["seconds"])
    ours = next(times for peer, times in taken.items() if peer.name == LIBRARY)
    return [
        Figure(
            operation,
            peer.name,
            statistics.median(times),
            statistics.median(theirs / mine for theirs, mine in zip(times, ours, strict=True)),
        )
        for peer, times in taken.items()
    ]


def _calls(peer: PeerProcess, operation: str) -> int:
    peer.ask(operation=operation, calls=1)  # the first one opens, compiles and caches
    once: float = peer.ask(operation=operation, calls=1)["seconds"]
    return min(max(round(TURN / once), 1), 200)


def main() -> None:
    """`python -m benchmarks.peers [PEER ...] [--json FILE] [--folder FOLDER] [--seconds SECONDS]`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    others = [name for name in CLASSES if name != LIBRARY]
    parser.add_argument("peers", nargs="*", choices=[*others, []], help="which, instead of all")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "jobhistory-benchmarks")
    parser.add_argument("--seconds", type=float, default=10, help="for each operation, of all peers together")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    names = [LIBRARY, *(options.peers or others)]

    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    rows = []
    for each in ROUNDS:
        print(f"{each.jobs:,} jobs of {each.connections:,} connections, {each.durability}")
        for figures in measure(each, names, options.folder, options.seconds):
            for figure in figures:
                print(figure.line(), flush=True)
                rows.append(
                    {"jobs": each.jobs, "connections": each.connections, "durability": each.durability}
                    | attrs.asdict(figure)
                )
    if options.json:
        options.json.write_text(json.dumps({"figures": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
