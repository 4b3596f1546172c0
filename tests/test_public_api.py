"""The public API of the package."""

import subprocess
import sys

import pytest

import dlq_pipelines


@pytest.mark.parametrize("name", dlq_pipelines.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(dlq_pipelines, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Outbox'"):
        _ = dlq_pipelines.Outbox


def test_importing_the_package_imports_no_driver() -> None:
    code = "import dlq_pipelines, sys; assert 'psycopg' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
