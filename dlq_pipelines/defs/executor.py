"""Selects where the steps of a run execute: in the run's process, in their own, or elsewhere."""

from dagster import ExecutorDefinition, in_process_executor, multiprocess_executor

from dlq_pipelines.errors import DlqError
from dlq_pipelines.settings import Executor, Settings

# Steps wait in a queue of their own: workers on Dagster's default queue may lack this code.
QUEUE = "dlq"


def select_executor(settings: Settings) -> ExecutorDefinition:
    """Return the executor that `DLQ_EXECUTOR` names.

    The default executes steps in the run's process: a run takes half the time, and a killed run
    leaves no step that goes on writing. The packages of the others are imported on demand.

    Raises:
        DlqError: the executor's extra is not installed, or Celery's Redis is not set.
    """
    match settings.executor:
        case Executor.IN_PROCESS:
            return in_process_executor
        case Executor.MULTIPROCESS:
            return multiprocess_executor
        case Executor.CELERY:
            return _build_celery_executor(settings)
        case Executor.K8S:
            return _get_k8s_executor()


def _build_celery_executor(settings: Settings) -> ExecutorDefinition:
    try:
        from dagster_celery import celery_executor
    except ImportError:
        raise _build_missing_extra_error(Executor.CELERY) from None
    if settings.celery_url is None:
        raise DlqError(
            "DLQ_EXECUTOR=celery needs DLQ_CELERY_URL.",
            "Set it to Celery's Redis: redis://host:6379/0.",
        )
    # The name of the variable, because runs, the UI and logs show this value and the URL may hold
    # a password.
    url = {"env": "DLQ_CELERY_URL"}
    return celery_executor.configured(
        {"broker": url, "backend": url, "config_source": {"task_default_queue": QUEUE}},
        name="celery",
    )


def _get_k8s_executor() -> ExecutorDefinition:
    try:
        from dagster_k8s import k8s_job_executor
    except ImportError:
        raise _build_missing_extra_error(Executor.K8S) from None
    return k8s_job_executor


def _build_missing_extra_error(extra: Executor) -> DlqError:
    return DlqError(
        f"DLQ_EXECUTOR={extra} needs packages that are not installed.",
        f"Run `pip install 'dlq-pipelines[{extra}]'`, or unset DLQ_EXECUTOR.",
    )
