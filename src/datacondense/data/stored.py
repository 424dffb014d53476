"""Tensors in files: rows are read when they are taken, so that data may be larger than the memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from datacondense.data.memory import require_room_for_all
from datacondense.data.open_file import OpenFile
from datacondense.errors import DatacondenseError
from datacondense.files import cache_folder
from datacondense.stopping import check_stop

#: Bytes of the pieces in which a whole tensor is gone through.
_PIECE = 2**20


class StoredTensor(Tensor):
    """Rows of a tensor that is in a file: a tensor that holds none of them.

    `[…]` reads the rows that it takes, `split` and `taken` read nothing. Every other function is given the
    values, all of them read, if the memory has room for them. They cannot be changed.
    """

    _file: OpenFile
    _start: int
    _stored: tuple[int, ...]
    _rows: Int[Tensor, " n"]

    @classmethod
    def of(
        cls,
        file: OpenFile,
        start: int,
        rows: Int[Tensor, " n"],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        shown: tuple[int, ...] | None = None,
    ) -> StoredTensor:
        """These rows, each of `shape`, of which the first begins at byte `start`; expanded to `shown`."""
        made = torch.empty((len(rows), *(shown or shape)), dtype=dtype, device="meta").as_subclass(cls)
        made._file, made._start, made._stored, made._rows = file, start, shape, rows
        return made

    def taken(self, rows: Int[Tensor, " m"] | Bool[Tensor, " n"] | slice) -> StoredTensor:
        """Some of the rows, unread."""
        return self._with(self._rows[rows])

    def with_channels(self, count: int) -> StoredTensor:
        """Images with their single channel so many times."""
        return self._with(self._rows, (count, *self.shape[2:]))

    def _with(self, rows: Int[Tensor, " m"], shown: tuple[int, ...] | None = None) -> StoredTensor:
        """These rows of the file."""
        shown = shown or tuple(self.shape[1:])
        return StoredTensor.of(self._file, self._start, rows, self._stored, self.dtype, shown)

    def read(self) -> Tensor:
        """All rows, in memory.

        Raises:
            DatacondenseError: the file has become shorter or cannot be read.
        """
        values = torch.empty((len(self), *self._stored), dtype=self.dtype)
        if not values.numel():
            return values.expand(self.shape)
        buffer = values.numpy().data.cast("B")
        size = len(buffer) // len(self)
        place = 0
        for first, count in _runs(self._rows):
            end = place + count * size
            self._file.read(buffer[place:end], self._start + first * size)
            place = end
        return values.expand(self.shape).contiguous()

    def _item(self, index: Any) -> Tensor:
        first, *others = index if isinstance(index, tuple) else (index,)
        if first is None or first is Ellipsis:
            first, others = slice(None), [first, *others]
            return self._whole()[tuple(others)]
        rows = self._rows[first]
        one = rows.ndim == 0
        found = self._with(rows.reshape(-1)).read()
        found = found[0] if one else found
        return found[tuple(others) if one else (slice(None), *others)] if others else found

    def _whole(self) -> Tensor:
        require_room_for_all(self.nbytes)
        return self.read()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"StoredTensor({tuple(self.shape)}, {self.dtype}, in {self._file.name})"

    @classmethod
    def __torch_function__(  # type: ignore[no-untyped-def]
        cls, func, types, args=(), kwargs=None
    ) -> Any:
        """Called by PyTorch for every function of such a tensor."""
        kwargs = kwargs or {}
        if func in _about():
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func is Tensor.device.__get__:
            return torch.device("cpu")
        if func is Tensor.__getitem__:
            return args[0]._item(args[1])
        if func in (Tensor.split, torch.split) and isinstance(args[1], int) and not kwargs.get("dim"):
            return tuple(args[0].taken(slice(i, i + args[1])) for i in range(0, len(args[0]), args[1]))
        if func is Tensor.__setitem__ or (func.__name__.endswith("_") and func.__name__[-2:] != "__"):
            raise DatacondenseError("images in a file cannot be changed; change a copy: images[rows]")
        return func(*_read_all(args), **dict(zip(kwargs, _read_all(kwargs.values()), strict=True)))


@cache  # not before it is needed: for help there is no PyTorch
def _about() -> set[Any]:
    """What is answered without the values."""
    properties = (
        "shape",
        "ndim",
        "dtype",
        "nbytes",
        "itemsize",
        "layout",
        "requires_grad",
        "is_leaf",
        "grad",
    )
    return {
        Tensor.size, Tensor.dim, Tensor.numel, Tensor.nelement, Tensor.__len__, Tensor.element_size,
        Tensor.is_floating_point, Tensor.is_complex, Tensor.is_contiguous,
        *(getattr(Tensor, name).__get__ for name in (*properties, "grad", "grad_fn")),
    }  # fmt: skip


def _read_all(values: Iterable[Any]) -> list[Any]:
    def value(found: Any) -> Any:
        if isinstance(found, list | tuple):
            return type(found)(map(value, found))
        return found._whole() if isinstance(found, StoredTensor) else found

    return [value(found) for found in values]


def _runs(rows: Int[Tensor, " n"]) -> Iterator[tuple[int, int]]:
    """(first, count) of rows that follow one another in the file: each run is read at once."""
    ends = [*(rows.diff() != 1).nonzero().flatten().add(1).tolist(), len(rows)]
    begin = 0
    for end in ends:
        yield int(rows[begin]), end - begin
        begin = end


def taken(tensor: Shaped[Tensor, "n ..."], rows: Int[Tensor, " m"]) -> Shaped[Tensor, "m ..."]:
    """`tensor[rows]`; of one in a file, still in the file."""
    return tensor.taken(rows) if isinstance(tensor, StoredTensor) else tensor[rows]


def with_channels(images: Shaped[Tensor, "n _ h w"], count: int) -> Shaped[Tensor, "n c h w"]:
    """Grey images with so many channels; those that have them already as they are."""
    if isinstance(images, StoredTensor):
        return images.with_channels(count)
    return images.expand(-1, count, -1, -1).contiguous()


def pieces(tensor: Shaped[Tensor, "n ..."]) -> Iterator[Shaped[Tensor, "_ ..."]]:
    """All rows, in memory, a bounded number at a time."""
    row = max(1, math.prod(tensor.shape[1:]) * tensor.element_size())
    for part in tensor.split(max(1, _PIECE // row)):
        check_stop()
        yield part.read() if isinstance(part, StoredTensor) else part


def joined(parts: Iterable[Shaped[Tensor, "_ ..."]], like: Tensor) -> Shaped[Tensor, "n ..."]:
    """The rows of all parts, at least one: in memory, or where `like` is in a file, in a file, too."""
    if not isinstance(like, StoredTensor):
        return torch.cat(list(parts))
    writer = None
    for part in parts:
        writer = writer or RowWriter(tuple(part.shape[1:]), part.dtype, len(like))
        writer.add(part)
    assert writer
    return writer.finish()


class RowWriter:
    """Writes rows one after another to a file that is made for them."""

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, count: int, path: Path | None = None, start: int = 0
    ) -> None:
        """For `count` rows of `shape`, the first at byte `start`; without a `path` the file has no name.

        Raises:
            DatacondenseError: it cannot be made.
        """
        self.shape, self.dtype, self.written, self._start = shape, dtype, 0, start
        self._row = math.prod(shape) * dtype.itemsize
        self._size, self._folder = count * self._row, cache_folder()
        with self._errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = OpenFile(path, new=True)

    def add(self, rows: Shaped[Tensor, "_ ..."]) -> None:
        """Write more rows.

        Raises:
            DatacondenseError: the disk is full, or fails.
        """
        if rows.numel():
            content = rows.contiguous().numpy().data.cast("B")
            with self._errors():
                self._file.write(content, self._start + self.written * self._row)
        self.written += len(rows)

    def finish(self, header: bytes = b"") -> StoredTensor:
        """What was written. A `header` is put before it once it has reached the disk."""
        if header:
            with self._errors():
                self._file.sync()
                self._file.write(header, 0)
                self._file.sync()
        rows = torch.arange(self.written)
        return StoredTensor.of(self._file, self._start, rows, self.shape, self.dtype)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DatacondenseError(
                f"cannot write {self._size / 2**30:,.1f} GiB of decoded images to {self._folder}: "
                f"{error.strerror or error}; make room there, or set DATACONDENSE_CACHE to a folder on "
                "another disk"
            ) from None
