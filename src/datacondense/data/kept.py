"""Decoded images kept in the cache folder: a safetensors file per split, there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import msgspec
import PIL
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from datacondense.data.open_file import OpenFile
from datacondense.data.stored import StoredTensor
from datacondense.errors import DatacondenseError
from datacondense.files import cache_folder
from datacondense.reading import ENTRY
from datacondense.stopping import check_stop, pause

#: Bytes before the first image, which the header fills: a page, so that images begin where pages do.
START = 4096
#: To be raised when equal pictures are decoded to other pixels: what was kept before is then decoded again.
_DECODER = 1
#: Threads that look up the state of files, and files that each of them does at a time.
_LOOKING, _FILES = 4, 256
#: Seconds between two looks whether another process has finished.
_PATIENCE = 0.2
_KIND = f"{ENTRY}images"


class Decoded(NamedTuple):
    """The pictures of a split as one tensor."""

    images: UInt8[Tensor, "n c h w"]
    jpeg: bool
    """Whether some of them were JPEG, which loses detail that small images cannot spare."""


class Kept:
    """Where the decoded images of a split are kept, and whether they still are those of its pictures.

    Args:
        place: what is decoded and how, apart from the size: the split's folder or table, its columns.
        content: gives what changes whenever the pictures do, as JSON can hold it.
    """

    def __init__(self, place: str, content: Callable[[], Any], size: tuple[int, int] | None) -> None:
        name = hashlib.sha256(json.dumps([place, size]).encode()).hexdigest()[:32]
        self._path, self._look, self._place = cache_folder() / f"images-{name}.safetensors", content, place
        self._lock = filelock.FileLock(self._path.with_suffix(".lock"))
        #: Where they are written; the name ends as those that are removed when they are old.
        self.temporary = self._path.with_name(f".datacondense-{name}.tmp")

    @cached_property
    def _content(self) -> str:
        return self._present_content()

    def _present_content(self) -> str:
        described = json.dumps([_DECODER, PIL.__version__, self._look()])
        return hashlib.sha256(described.encode()).hexdigest()

    def find(self, count: int) -> Decoded | None:
        """The images, if there is a whole file of `count` of them with the present content."""
        content = self._content  # as it is before anything is decoded
        with suppress(OSError, DatacondenseError, ValueError, LookupError, msgspec.MsgspecError):
            file, start = OpenFile(self._path), bytearray(START)
            file.read(memoryview(start), 0)
            header = msgspec.json.decode(bytes(start[8:]), type=_Header)
            about = msgspec.json.decode(header.metadata[_KIND], type=_About)
            shape = header.images.shape
            whole = file.size == START + math.prod(shape)
            if whole and len(shape) == 4 and shape[0] == count and about.content == content:
                rows = torch.arange(count)
                images = StoredTensor.of(file, START, rows, tuple(shape[1:]), torch.uint8)
                return Decoded(images, about.jpeg)
        return None

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Inside, no other process decodes the same pictures; one that is doing so is waited for. Whoever has
        claimed them may do so again."""
        lock = self._lock
        title = f"wait for another process, which decodes {self._place}"
        with suppress(OSError):  # where nothing can be written, whoever writes the images says so
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tqdm(bar_format=f"{title} [{{elapsed}}]", delay=1, disable=None) as shown:
                while not lock.is_locked:
                    with suppress(filelock.Timeout):
                        lock.acquire(timeout=0)
                        break
                    pause(_PATIENCE)
                    shown.update()
        try:
            yield
        finally:
            if lock.is_locked:
                with suppress(OSError):
                    self.temporary.unlink(missing_ok=True)
                with suppress(OSError):
                    Path(lock.lock_file).unlink()
                lock.release()

    def header(self, count: int, shape: tuple[int, ...], jpeg: bool) -> bytes:
        """The first `START` bytes of the file."""
        tensor = _Tensor("U8", [count, *shape], [0, count * math.prod(shape)])
        about = msgspec.json.encode(_About(self._content, jpeg)).decode()
        described = msgspec.json.encode(_Header({_KIND: about}, tensor))
        return (START - 8).to_bytes(8, "little") + described.ljust(START - 8)

    def keep(self) -> None:
        """Move what is written into its place, unless the pictures have changed meanwhile."""
        with suppress(OSError):
            if self._present_content() == self._content:
                os.replace(self.temporary, self._path)


def state_of(files: Iterable[str]) -> str:
    """A hash of the names, sizes and times of change of files; they are looked up by several threads, because
    a network answers slowly."""
    names, digest = iter(files), hashlib.sha256()
    with ThreadPoolExecutor(_LOOKING) as pool:
        while batches := list(islice(iter(lambda: list(islice(names, _FILES)), []), 4 * _LOOKING)):
            check_stop()
            for described in pool.map(_described, batches):
                digest.update(described)
    return digest.hexdigest()


def _described(files: list[str]) -> bytes:
    lines = []
    for file in files:
        try:
            found = os.stat(file)
            lines.append(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\n")
        except (OSError, ValueError):  # who opens it says what is wrong
            lines.append(f"{file}\0missing\n")
    return "".join(lines).encode(errors="surrogateescape")


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: list[int]


class _Header(msgspec.Struct):
    metadata: dict[str, str] = msgspec.field(name="__metadata__")
    images: _Tensor


class _About(msgspec.Struct):
    content: str
    jpeg: bool
