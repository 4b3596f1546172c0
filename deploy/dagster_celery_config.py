"""For Celery's workers: `celery -A dagster_celery.app worker -Q dlq`, with this file's folder in PYTHONPATH.

`dagster_celery.app` imports it by this name. Started by Celery itself, because `dagster-celery worker start` hands no
signal on: a worker that is stopped would be killed in the middle of its step. The definitions say the same to the runs
(dlq_pipelines/defs/executor.py).
"""

import os

broker_url = result_backend = os.environ["DLQ_CELERY_URL"]
task_default_queue = "dlq"
# A step is taken off the queue when it has ended, so that another worker gets it where one dies.
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1
# When that is, after so many seconds. Longer than the longest step: what still runs would be given to a second worker.
# That one doubles nothing, but a day that is being exported is refused, and its run fails.
broker_transport_options = {"visibility_timeout": 3600}
