"""How fair the one writer's place is, when eight processes want it all the time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cases import Figure
from benchmarks.data import connection_ids
from jobhistory.storage.sqlite import SQLiteJobRepository

PROCESSES = 8
_WRITER = """
import json, sys, time
import jobhistory
path, connection, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
history = jobhistory.open(path)
history.list_jobs(connection)
print("ready", flush=True)
sys.stdin.readline()
writes, longest, until = 0, 0.0, time.monotonic() + seconds
while (begun := time.monotonic()) < until:
    history.enqueue(connection)
    longest = max(longest, time.monotonic() - begun)
    writes += 1
print(json.dumps([writes, longest]))
"""


def crowd(seconds: float) -> Iterator[Figure]:
    """Eight processes that add jobs to one file, synced to disk, for so many seconds."""
    [connection] = connection_ids(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        with_connection = SQLiteJobRepository(path)
        with_connection.register(connection)
        with_connection.close()
        words = [sys.executable, "-c", _WRITER, str(path), str(connection), str(seconds)]
        writers = [
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        told = [json.loads(writer.communicate()[0]) for writer in writers]
    writes, waits = zip(*told, strict=True)
    yield Figure(f"{PROCESSES} processes writing, longest wait", "ms", 150, 1000 * max(waits))
    yield Figure(f"{PROCESSES} processes writing, most over least", "", 1 / 0.7, max(writes) / min(writes))
