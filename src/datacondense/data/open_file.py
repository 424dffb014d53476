"""A file that is read and written at positions, and closed with its last use."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from datacondense.errors import DatacondenseError
from datacondense.files import cache_folder

#: Bytes that are copied at a time.
_COPIED = 2**20


class OpenFile:
    """A file that is closed with its last use: read and written at positions, by any number of threads.

    Without a path it has no name, in the cache folder, and vanishes when it is closed.
    """

    def __init__(self, path: Path | None, *, new: bool = False) -> None:
        self.name = str(path or "a temporary file")
        if path and new:
            path.unlink(missing_ok=True)  # whoever has it open can read it still
        if path:
            self._descriptor = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_EXCL if new else os.O_RDONLY, 0o666
            )
        else:
            self._descriptor, name = tempfile.mkstemp(dir=cache_folder())
            os.unlink(name)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self._descriptor)

    @property
    def size(self) -> int:
        """In bytes."""
        return os.fstat(self._descriptor).st_size

    def read(self, buffer: memoryview, at: int) -> None:
        """Fill the buffer with the bytes from position `at` on.

        Raises:
            DatacondenseError: there are too few, or the disk fails.
        """
        while len(buffer):
            try:
                found = os.pread(self._descriptor, min(len(buffer), _COPIED), at)
            except OSError as error:
                raise DatacondenseError(f"cannot read {self.name}: {error.strerror or error}") from None
            if not found:
                raise DatacondenseError(f"{self.name} was cut off while it was in use; start again")
            buffer[: len(found)] = found
            buffer, at = buffer[len(found) :], at + len(found)

    def write(self, content: memoryview | bytes, at: int) -> None:
        """Write all of `content` from position `at` on, or raise OSError."""
        content = memoryview(content)
        while len(content):
            done = os.pwrite(self._descriptor, content, at)
            content, at = content[done:], at + done

    def sync(self) -> None:
        """Wait until the disk has what was written."""
        os.fsync(self._descriptor)
