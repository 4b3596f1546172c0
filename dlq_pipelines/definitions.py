"""The code location: everything that `defs/` defines, the outbox's resource and the executor."""

import dagster as dg

from dlq_pipelines.defs.collect import collect_definitions
from dlq_pipelines.defs.executor import select_executor
from dlq_pipelines.defs.resources import OutboxResource
from dlq_pipelines.settings import read_settings

defs = dg.Definitions.merge(
    collect_definitions(),
    dg.Definitions(
        resources={"outbox": OutboxResource()}, executor=select_executor(read_settings())
    ),
)
