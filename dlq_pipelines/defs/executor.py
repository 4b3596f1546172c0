"""Where are the steps of a run executed: here, in a process of their own, or on other machines?"""

from dagster import ExecutorDefinition, in_process_executor, multiprocess_executor

from dlq_pipelines.errors import DlqError
from dlq_pipelines.settings import Executor, Settings

# Steps wait here and not in Dagster's own queue, whose workers may know nothing of this code.
QUEUE = "dlq"


def select_executor(settings: Settings) -> ExecutorDefinition:
    """The executor that `DLQ_EXECUTOR` names.

    In the run's own process by default: half the time of a run, and a killed run leaves no step behind that goes on
    writing. The others' packages are imported when they are asked for.

    Raises:
        DlqError: its extra is not installed, or Celery's Redis is not named.
    """
    match settings.executor:
        case Executor.IN_PROCESS:
            return in_process_executor
        case Executor.MULTIPROCESS:
            return multiprocess_executor
        case Executor.CELERY:
            return _celery(settings)
        case Executor.K8S:
            return _k8s()


def _celery(settings: Settings) -> ExecutorDefinition:
    try:
        from dagster_celery import celery_executor
    except ImportError:
        raise _missing(Executor.CELERY) from None
    if settings.celery_url is None:
        raise DlqError(
            "DLQ_EXECUTOR=celery needs DLQ_CELERY_URL. Set it to Celery's Redis: redis://host:6379/0."
        )
    # By the name of the variable: runs, the UI and logs show this, and the URL may hold a password.
    url = {"env": "DLQ_CELERY_URL"}
    return celery_executor.configured(
        {"broker": url, "backend": url, "config_source": {"task_default_queue": QUEUE}},
        name="celery",
    )


def _k8s() -> ExecutorDefinition:
    try:
        from dagster_k8s import k8s_job_executor
    except ImportError:
        raise _missing(Executor.K8S) from None
    return k8s_job_executor


def _missing(extra: Executor) -> DlqError:
    return DlqError(
        f"DLQ_EXECUTOR={extra} needs packages that are not installed. Run `pip install 'dlq-pipelines[{extra}]'`, "
        "or unset DLQ_EXECUTOR."
    )
