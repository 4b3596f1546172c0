"""The code location of one outbox: its definitions and the executor that `DLQ_EXECUTOR` names."""

import warnings

import dagster as dg

from dlq_pipelines.defs.executor import select_executor
from dlq_pipelines.defs.factory import dead_letter_definitions
from dlq_pipelines.defs.outbox import load_settings
from dlq_pipelines.settings import read_settings

# Dagster marks owners of jobs beta. Its notice at every start would hide other messages.
warnings.filterwarnings(
    "ignore", "Parameter `owners` of initializer `JobDefinition", category=dg.BetaWarning
)

defs = dg.Definitions.merge(
    dead_letter_definitions(read_settings, owners=["team:data-platform"]),
    dg.Definitions(executor=select_executor(load_settings(read_settings))),
)
