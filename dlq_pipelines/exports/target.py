"""Where do exports and reports go: a folder, S3 or Google's storage, and how does a file get there whole or not at all?

Files are finished in a staging folder first. In a local target that folder is on the same disk and a finished file is
renamed into its place; in an object store it is uploaded from this machine, and an object appears when its upload ends.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pa_fs

from dlq_pipelines.errors import DlqError
from dlq_pipelines.exports.manifest import ExportedFile
from dlq_pipelines.text import sanitize_line

FOLDER = "dead_events"
_READ_SIZE = 2**20
# What a browser has to be told, or it saves a page instead of showing it.
_SHOWN_AS = {
    ".html": "text/html; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".json": "application/json",
}


@dataclass(frozen=True)
class Target:
    """A place that files of days are written to.

    Attributes:
        uri: the place as people may see it: without credentials and options.
        staging: a local folder for unfinished files.
        local: the folder, where the place is one; else None.
    """

    uri: str
    staging: Path
    local: Path | None
    _files: pa_fs.FileSystem = field(repr=False)
    _root: str = field(repr=False)

    @contextmanager
    def unfinished(self, prefix: str) -> Iterator[Path]:
        """A new folder for unfinished files; folders of that prefix, which killed runs left, go first."""
        self.staging.mkdir(parents=True, exist_ok=True)
        for left in self.staging.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=self.staging))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, file: Path, name: str) -> None:
        """Bring a finished file to its place: a reader sees the old one or the new one, never half of one."""
        shown_as = _SHOWN_AS.get(file.suffix)
        if self.local is None and shown_as:
            with self._files.open_output_stream(
                self._path(name), metadata={"Content-Type": shown_as}
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
        """Remove a file if it is there."""
        if not self.has(name):
            return
        self._files.delete_file(self._path(name))
        if self.local is not None:
            _sync((self.local / name).parent)

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return bool(self._files.get_file_info(self._path(name)).is_file)

    def open(self, name: str) -> pa.NativeFile:
        """Open a file to read it anywhere."""
        return self._files.open_input_file(self._path(name))

    def place(self, name: str) -> str:
        """Where a file or folder of the export is: an absolute path, or a URI without credentials and options."""
        return f"{self.uri}/{name}" if self.local is None else str((self.local / name).resolve())

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def open_target(
    uri: str, *, staging: Path, folder: str = FOLDER, setting: str = "DLQ_EXPORT_URI"
) -> Target:
    """The target at a folder or a URI that pyarrow understands. Asks no server.

    Args:
        uri: a folder, file:///folder, s3://bucket/prefix or gs://bucket/prefix.
        staging: where files are finished before they are uploaded; a local target has its own.
        folder: which is made in it; empty: the place itself.
        setting: the variable that says the URI, for messages.

    Raises:
        DlqError: pyarrow does not understand it.
    """
    if "://" not in uri:
        return open_local_target(Path(uri), folder)
    try:
        files, path = pa_fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DlqError(f"{setting} cannot be used: {_without_secrets(str(error), uri)}.") from None
    if isinstance(files, pa_fs.LocalFileSystem):
        return open_local_target(Path(path), folder)
    below = f"/{folder}" if folder else ""
    return Target(redact_uri(uri, folder), staging, None, files, f"{path.rstrip('/')}{below}")


def redact_uri(uri: str, folder: str = FOLDER) -> str:
    """The place of a target as a URI that people may see: without credentials and options. Asks no server."""
    if "://" not in uri:
        return (Path(uri) / folder).resolve().as_uri()
    parts, below = urlsplit(uri), f"/{folder}" if folder else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}{below}"


def open_local_target(place: Path, folder: str = FOLDER) -> Target:
    """The target in a folder of this machine, which is created when absent."""
    root = place / folder
    return Target(str(root), root, root, pa_fs.LocalFileSystem(), str(root))


def measure_file(path: Path, name: str) -> ExportedFile:
    """Size and sum of a finished file, which is on disk after that."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return ExportedFile(name, path.stat().st_size, digest)


def compute_sha256(file: pa.NativeFile) -> str:
    """SHA-256 of a file that is read anywhere, in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := file.read(_READ_SIZE):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def explain_storage_errors(
    target: Target, what: str, again: str = "export the day again"
) -> Iterator[None]:
    """Say what a file system refused in one sentence, and what to do once that is mended.

    Raises:
        DlqError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else sanitize_line(str(error), 500)
        raise DlqError(f"{what} {target.uri}: {reason}. Mend that, then {again}.") from None


def _without_secrets(text: str, uri: str) -> str:
    """What pyarrow said, which may repeat the URI or a part of it."""
    account = urlsplit(uri).netloc.rpartition("@")[0]
    for secret in (uri, account, *account.split(":", 1), unquote(account)):
        text = text.replace(secret, "...") if secret else text
    return sanitize_line(text, 300).rstrip(".")


def _sync(folder: Path) -> None:
    """Make the folder's changes outlive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
