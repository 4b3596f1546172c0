"""Configures Celery workers: `celery -A dagster_celery.app worker -Q dlq`.

The folder of this file must be in PYTHONPATH, because `dagster_celery.app` imports it by its name.
Start workers with Celery itself: `dagster-celery worker start` does not forward signals, so a
worker that is stopped would be killed in the middle of a step. dlq_pipelines/defs/executor.py has
the same settings for the runs.
"""

import os

broker_url = result_backend = os.environ["DLQ_CELERY_URL"]
task_default_queue = "dlq"
# A step is acknowledged when it ends, so that another worker gets it if its worker dies.
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1
# Seconds after which another worker gets the step. Keep it longer than the longest step: otherwise
# a second worker starts the step while the first one is running. Nothing is done twice, but the
# second export of a day is refused, and its run fails.
broker_transport_options = {"visibility_timeout": 3600}
