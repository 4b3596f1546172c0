"""Writes complete files of exports and reports to a folder, S3 or Google Cloud Storage.

Files are written in a staging folder first. A local target has that folder on the same disk, and a
complete file is renamed into its place. In an object store the file is uploaded, and the object
appears when the upload ends: an upload that was closed halfway would become an object too, and its
checksum would need a second read.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pa_fs

from dlq_pipelines.errors import DlqError
from dlq_pipelines.exports.manifest import ExportedFile
from dlq_pipelines.exports.uri import FOLDER, redact_uri
from dlq_pipelines.text import sanitize_line

_READ_SIZE = 2**20
# Without its content type, a browser downloads a page instead of showing it.
_CONTENT_TYPE = {
    ".html": "text/html; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".json": "application/json",
}


@dataclass(frozen=True)
class Target:
    """The place of exports or reports.

    Attributes:
        uri: the place without credentials and options.
        staging: a local folder for unfinished files.
        local: the folder, of a local target; else None.
    """

    uri: str
    staging: Path
    local: Path | None
    _files: pa_fs.FileSystem = field(repr=False)
    _root: str = field(repr=False)

    @contextmanager
    def unfinished(self, prefix: str) -> Iterator[Path]:
        """Yield a new folder for unfinished files; delete those that killed runs left."""
        self.staging.mkdir(parents=True, exist_ok=True)
        for left in self.staging.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=self.staging))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, file: Path, name: str) -> None:
        """Move a complete file to its place: readers see the old file or the new one."""
        content_type = _CONTENT_TYPE.get(file.suffix)
        if self.local is None and content_type:
            with self._files.open_output_stream(
                self._path(name), metadata={"Content-Type": content_type}
            ) as stream:
                stream.write(file.read_bytes())
            return
        if self.local is None:
            pa_fs.copy_files(
                str(file),
                self._path(name),
                source_filesystem=pa_fs.LocalFileSystem(),
                destination_filesystem=self._files,
            )
            return
        place = self.local / name
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
        for folder in (place.parent, place.parent.parent):
            _sync(folder)

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        if not self.has(name):
            return
        self._files.delete_file(self._path(name))
        if self.local is not None:
            _sync((self.local / name).parent)

    def remove_empty_folder(self, name: str) -> None:
        """Delete a local folder if nothing is in it. An object store has no folders."""
        if self.local is not None:
            with suppress(OSError):
                (self.local / name).rmdir()

    def has(self, name: str) -> bool:
        """Whether the file exists."""
        return bool(self._files.get_file_info(self._path(name)).is_file)

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for random access."""
        return self._files.open_input_file(self._path(name))

    def place(self, name: str) -> str:
        """Return the absolute path of a file or folder, or its URI without credentials."""
        return f"{self.uri}/{name}" if self.local is None else str((self.local / name).resolve())

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def open_target(
    uri: str, *, staging: Path, folder: str = FOLDER, setting: str = "DLQ_EXPORT_URI"
) -> Target:
    """Return the target at a folder or a URI that pyarrow supports. Does not connect.

    Args:
        uri: a folder, file:///folder, s3://bucket/prefix, gs://bucket/prefix or
            abfs://container@account.dfs.core.windows.net/prefix.
        staging: where files are written before the upload; a local target has its own.
        folder: the folder to create in it; empty: the place itself.
        setting: the variable that has the URI, for messages.

    Raises:
        DlqError: pyarrow does not support the URI.
    """
    if "://" not in uri:
        return open_local_target(Path(uri), folder)
    try:
        files, path = pa_fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DlqError(
            f"{setting} cannot be used: {_strip_secrets(str(error), uri)}.",
            "Set it to a folder, file:///folder, s3://bucket/prefix, gs://bucket/prefix or "
            "abfs://container@account.dfs.core.windows.net/prefix.",
        ) from None
    if isinstance(files, pa_fs.LocalFileSystem):
        return open_local_target(Path(path), folder)
    below = f"/{folder}" if folder else ""
    return Target(redact_uri(uri, folder), staging, None, files, f"{path.rstrip('/')}{below}")


def open_local_target(place: Path, folder: str = FOLDER) -> Target:
    """Return the target in a local folder, which is created on the first write."""
    root = place / folder
    return Target(str(root), root, root, pa_fs.LocalFileSystem(), str(root))


def measure_file(path: Path, name: str) -> ExportedFile:
    """Return size and checksum of a complete file, and flush it to disk."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return ExportedFile(name, path.stat().st_size, digest)


def compute_sha256(file: pa.NativeFile) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := file.read(_READ_SIZE):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def explain_storage_errors(
    target: Target, failure: str, retry: str = "export the day again"
) -> Iterator[None]:
    """Turn an OSError into a DlqError with the target and the reason.

    Args:
        target: where files are written or read.
        failure: the beginning of the message, before the target.
        retry: what to do once the reason is resolved.

    Raises:
        DlqError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else sanitize_line(str(error), 500)
        raise DlqError(
            f"{failure} {target.uri}: {reason}.", f"Resolve this, then {retry}."
        ) from None


def _strip_secrets(text: str, uri: str) -> str:
    """Remove the URI and its credentials from a message of pyarrow."""
    account = urlsplit(uri).netloc.rpartition("@")[0]
    for secret in (uri, account, *account.split(":", 1), unquote(account)):
        text = text.replace(secret, "...") if secret else text
    return sanitize_line(text, 300).rstrip(".")


def _sync(folder: Path) -> None:
    """Flush the folder's changes to disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
