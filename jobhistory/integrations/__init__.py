"""What else people run: a small file each, with an extra of its name, and imported by itself.

Hooks, for `jobhistory.open(url, hooks=[...])`; one that is slow in the background, `jobhistory.background(hook)`:

opentelemetry.py   a span for each job, and metrics
openlineage.py     run events
prometheus.py      metrics; over HTTP with `jobhistory serve --metrics`
logs.py            a log record for each change, with structured fields
attributes.py      the names of those fields, and of a span's attributes

Engines, for the worker's `with history.track(...) as run:`:

dlt.py             a pipeline
singer.py          a tap

Schedulers and queues need no code of ours. APScheduler: the schedule tracks, and does not start what runs still;
another schedule ends what a crash left behind.

```python
from apscheduler.schedulers.blocking import BlockingScheduler

import jobhistory

history = jobhistory.open(URL)


def sync(connection):
    try:
        with history.track(connection, exclusive=True, metadata={"trigger": "schedule"}) as run:
            for batch in batches_of(connection):
                run.report(inserted=len(batch))
    except jobhistory.ActiveJobExistsError:
        pass  # it runs still, here or on another machine


scheduler = BlockingScheduler()
scheduler.add_job(sync, "interval", minutes=15, args=[CONNECTION], id=CONNECTION)
# A crash between enqueuing and claiming leaves a job that would refuse all others: here none waits for long.
scheduler.add_job(history.reap, "interval", minutes=1, max_instances=1, kwargs={"pending_for": 300})
```

Celery: the job waits as PENDING beside its message, and the worker claims it. So `history.cancel` reaches it wherever
it is, and a message that comes twice runs once.

```python
from celery import Celery

import jobhistory

app = Celery("syncs", broker=BROKER)
history = jobhistory.open(URL)  # the processes that Celery forks may share it


@app.task(acks_late=True)
def sync(job_id):
    try:
        with history.run(job_id, handle_sigterm=True) as run:  # `control.revoke(terminate=True)` sends SIGTERM
            for batch in batches_of(run.job.source_connection_id):
                run.report(inserted=len(batch))
    except jobhistory.InvalidTransitionError:
        pass  # cancelled while it waited, or delivered twice


def enqueue(connection):
    job = history.enqueue(connection, metadata={"trigger": "celery"})
    sync.apply_async([str(job.id)], task_id=str(job.id))
    return job
```

A message that is lost leaves its job PENDING: `history.reap(pending_for=86400)` ends it.
"""
