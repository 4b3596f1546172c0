"""The S3 of the exports' tests serves reports too."""

from tests.exports.conftest import s3, s3_server

__all__ = ["s3", "s3_server"]
