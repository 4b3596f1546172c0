"""The code location of one outbox: its definitions and the executor that `DLQ_EXECUTOR` names."""

import dagster as dg

from dlq_pipelines.defs.executor import select_executor
from dlq_pipelines.defs.factory import dead_letter_definitions
from dlq_pipelines.defs.outbox import load_settings
from dlq_pipelines.settings import read_settings

defs = dg.Definitions.merge(
    dead_letter_definitions(read_settings, owners=["team:data-platform"]),
    dg.Definitions(executor=select_executor(load_settings(read_settings))),
)
