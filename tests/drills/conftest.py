"""The fixtures of Dagster's instance, as the tests of the definitions have them."""

from tests.defs.conftest import copy_dagster, instance

__all__ = ["copy_dagster", "instance"]
