"""Shares the S3 server of the export tests."""

from tests.exports.conftest import s3, s3_server

__all__ = ["s3", "s3_server"]
