"""dlt: a pipeline's run as a job. Needs `pip install 'jobhistory[dlt]'`.

    with history.track(users) as run:
        run_pipeline(run, pipeline, source())

Counts come from dlt's own results (https://dlthub.com/docs/running-in-production/running): the rows that it wrote
into each file of a load are `inserted` where that file was loaded, `failed` where it failed for good. Rows of nested
tables are parts of an entity, and dlt's own tables no entities: neither is counted. What was merged is `inserted` too,
for dlt does not tell it from what is new. They need dlt's runtime trace, which is on by default.

A job is FAILED where dlt raises PipelineStepFailed; what had been loaded is counted. A cancel is seen whenever dlt
tells of progress: behind a page of items, behind a file. To dlt it is an error like any other: what it has extracted
by then is pending, or dropped. Ctrl-C, and a signal that dlt catches while it normalizes and loads, come out as the
KeyboardInterrupt that dlt made a PipelineStepFailed of, and the job is CANCELLED.

What is pending the next run loads, and nothing else: so it is with dlt. Its rows are counted where the run before
it wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

try:
    from dlt.common.pipeline import LoadInfo, NormalizeInfo
    from dlt.common.runtime.collector import Collector
    from dlt.common.schema.utils import is_nested_table
    from dlt.pipeline.exceptions import PipelineStepFailed
    from dlt.pipeline.pipeline import Pipeline
except ImportError as error:
    message = "jobhistory.integrations.dlt needs dlt: pip install 'jobhistory[dlt]'"
    raise ImportError(message, name=error.name) from error

from jobhistory.errors import JobCancelled
from jobhistory.run import Run


def run_pipeline(run: Run, pipeline: Pipeline, data: Any = None, **options: Any) -> LoadInfo | None:
    """`pipeline.run(data, **options)` for the job of a Run: reports what it loaded, and stops when asked to.

    Raises PipelineStepFailed, KeyboardInterrupt, JobCancelled, LostJobError.
    """
    trace = pipeline.last_trace
    before = [step.step_info for step in trace.steps] if trace else []
    usual = pipeline.collector
    pipeline.collector = watch = _Watch(run, usual)
    try:
        return pipeline.run(data, **options)
    except PipelineStepFailed as failed:
        if watch.stopped:
            run.raise_if_cancelled()
        if isinstance(failed.exception, KeyboardInterrupt):
            raise failed.exception from None  # it is what caused the failure: no circle
        raise
    finally:
        pipeline.collector = usual
        with suppress(JobCancelled):  # added all the same
            run.report(**_counts(pipeline, before, watch.infos))


class _Watch(Collector):
    """The pipeline's own progress, with an eye on whether to stop."""

    def __init__(self, run: Run, usual: Collector) -> None:
        self.stopped = False
        self.infos: list[object] = []
        self._run = run
        self._usual = usual

    def update(self, *args: Any, **options: Any) -> None:
        """Pass it on, unless asked to stop: an Exception, for behind no other does dlt clean up."""
        if self._run.cancelled:
            self.stopped = True
            message = "asked to stop"
            raise RuntimeError(message)
        self._usual.update(*args, **options)

    def _start(self, step: str) -> None:
        self._usual(step)._start(step)  # called first, as dlt does: it names its bars by that

    def _stop(self) -> None:
        self._usual._stop()

    def on_start_trace(self, *args: Any) -> None:
        self._usual.on_start_trace(*args)

    def on_start_trace_step(self, *args: Any) -> None:
        self._usual.on_start_trace_step(*args)

    def on_end_trace_step(self, trace: Any, step: Any, *rest: Any) -> None:
        self.infos.append(step.step_info)
        self._usual.on_end_trace_step(trace, step, *rest)

    def on_end_trace(self, *args: Any) -> None:
        self._usual.on_end_trace(*args)


def _counts(pipeline: Pipeline, before: list[object], infos: list[object]) -> dict[str, int]:
    """What of the files whose rows are known was loaded by these steps, and not before: dlt repeats that."""
    rows = {name: written.items_count for name, written in _files([*before, *infos], NormalizeInfo).items()}
    old = {name for name, loaded in _files(before, LoadInfo).items() if loaded.state == "completed"}
    entities = {
        table["name"]
        for schema in pipeline.schemas.values()
        for table in schema.data_tables()
        if not is_nested_table(table)
    }
    counts = dict.fromkeys(_COUNTED.values(), 0)
    for name, loaded in _files(infos, LoadInfo).items():
        if name not in old and loaded.state in _COUNTED and loaded.table_name in entities:
            counts[_COUNTED[loaded.state]] += rows.get(name, 0)
    return counts


_COUNTED = {"completed": "inserted", "failed": "failed"}


def _files(infos: Iterable[object], kind: type[LoadInfo | NormalizeInfo]) -> dict[str, Any]:
    """What the steps of that kind measured of each file."""
    return {
        name: measured
        for info in infos
        if isinstance(info, kind)
        for several in info.metrics.values()
        for metrics in several
        for name, measured in metrics["job_metrics"].items()
    }
