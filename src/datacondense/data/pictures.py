"""All pictures of a split → one uint8 tensor: decoded by threads ahead of use, into memory or into a file."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datacondense.data.decoding import Picture, decode, different_sizes
from datacondense.data.kept import START, Decoded, Kept
from datacondense.data.memory import fit_into_memory, require_room, require_room_on_disk
from datacondense.data.stored import RowWriter, pieces
from datacondense.errors import DatacondenseError
from datacondense.files import cache_folder
from datacondense.stopping import check_stop

#: The most threads that decode, and how many batches of pictures each of them is ahead.
_THREADS, _AHEAD = 8, 2
#: The most pictures and about the most bytes of such a batch; a thread is handed no less than a picture.
_BATCH, _BATCH_BYTES = 32, 2**18
#: Of images in a file so many must fit into memory, or no work with them is possible.
_AT_LEAST = 16
#: Seconds of decoding after which a bar is shown.
_LONG = 3.0

_Pixels = tuple[UInt8[NDArray[np.uint8], "c h w"], str | None]


def decode_all(
    pictures: Iterable[Picture],
    count: int,
    where: str,
    name: Callable[[int], str],
    size: tuple[int, int] | None,
    kept: Kept | None = None,
) -> Decoded:
    """All `count` pictures, grey (c = 1) or, as soon as one of them has colour, RGB (c = 3).

    Transparent parts become black, 16-bit greys are scaled to 8 bits, the EXIF orientation is applied; of an
    animation the first frame is taken. `size`: (height, width) to resize to, bilinear and antialiased.

    Images that would take too much memory (see `fit_into_memory`) are in a file in the cache folder: that
    which is `kept` for the next time, or else one that vanishes with its last use.

    Raises:
        DatacondenseError: a picture that cannot be decoded, or of another size than the first one; the
            message says which, by `name(index)`. Images that fit neither into memory nor onto the disk; the
            message calls them `where`.
    """
    into: _InMemory | _InFile | None = None
    jpeg = False
    if size is not None:
        _require_room(count, 1, size, where)
    with ExitStack() as stack:
        shown = stack.enter_context(
            tqdm(desc=f"decode {where}", total=count, unit=" images", delay=_LONG, disable=None)
        )
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # odd metadata; pixels that cannot be read are errors
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        decoded = stack.enter_context(closing(_decoded(pictures, name, size)))
        for index, (array, format) in enumerate(decoded):
            channels, *sides = array.shape
            if into and into.shape[1:] != array.shape[1:]:
                raise different_sizes(name(0), into.shape[1:], name(index), sides)
            if into is None or channels > into.shape[0]:
                place = _place(count, array.shape, where, kept, stack)
                if isinstance(place, Decoded):
                    return place
                for grey in into.pieces() if into else ():
                    place.add(grey.repeat(channels, axis=1))
                into = place
            into.add(array[None].repeat(into.shape[0] // channels, axis=1))
            jpeg |= format == "JPEG"
            shown.update()
        images = into.finish(jpeg) if into else torch.empty((0, 1, 0, 0), dtype=torch.uint8)
    return Decoded(images, jpeg)


def _place(
    count: int, shape: tuple[int, ...], where: str, kept: Kept | None, stack: ExitStack
) -> _InMemory | _InFile | Decoded:
    """Room for `count` images of `shape`, or the images themselves where they were kept earlier."""
    channels, *sides = shape
    size = sides[0], sides[1]
    if _require_room(count, channels, size, where):
        return _InMemory(count, shape)
    if kept:
        if found := kept.find(count):
            return found
        stack.enter_context(kept.claimed())
        if found := kept.find(count):  # made by the process that was waited for
            return found
    require_room_on_disk(count, channels, size, where, cache_folder())
    return _InFile(count, shape, kept)


def _require_room(count: int, channels: int, size: tuple[int, int], where: str) -> bool:
    """Whether the images are to be in memory; `DatacondenseError` where it has no room to work with them."""
    in_memory = fit_into_memory(count, channels, size)
    require_room(count if in_memory else min(count, _AT_LEAST), channels, size, where)
    return in_memory


class _InMemory:
    """Images in an array."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._pixels, self._filled = np.empty((count, *shape), np.uint8), 0

    def add(self, images: UInt8[NDArray[np.uint8], "_ c h w"]) -> None:
        self._pixels[self._filled : self._filled + len(images)] = images
        self._filled += len(images)

    def pieces(self) -> Iterator[UInt8[NDArray[np.uint8], "_ c h w"]]:
        """What there is already."""
        yield self._pixels[: self._filled]

    def finish(self, jpeg: bool) -> UInt8[Tensor, "n c h w"]:
        return torch.from_numpy(self._pixels)


class _InFile:
    """Images in a file."""

    def __init__(self, count: int, shape: tuple[int, ...], kept: Kept | None) -> None:
        self.shape, self._kept = shape, kept
        path, start = (kept.temporary, START) if kept else (None, 0)
        self._writer = RowWriter(shape, torch.uint8, count, path, start)

    def add(self, images: UInt8[NDArray[np.uint8], "_ c h w"]) -> None:
        self._writer.add(torch.from_numpy(images))

    def pieces(self) -> Iterator[UInt8[NDArray[np.uint8], "_ c h w"]]:
        """What there is already."""
        for piece in pieces(self._writer.finish()):
            yield piece.numpy()

    def finish(self, jpeg: bool) -> UInt8[Tensor, "n c h w"]:
        if not self._kept:
            return self._writer.finish()
        images = self._writer.finish(self._kept.header(self._writer.written, self.shape, jpeg))
        self._kept.keep()
        return images


def _decoded(
    pictures: Iterable[Picture], name: Callable[[int], str], size: tuple[int, int] | None
) -> Generator[_Pixels]:
    """The pixels of every picture in turn, decoded a little ahead. Of several that are wrong the first is
    named, whichever is noticed first.
    """
    threads = min(_THREADS, torch.get_num_threads())
    ahead: deque[Future[list[_Pixels]]] = deque()
    batch: list[tuple[Picture | DatacondenseError, str]] = []
    taken, each = 0, _BATCH_BYTES  # bytes of the batch, and of a picture once it is decoded

    def decode_batch(batch: list[tuple[Picture | DatacondenseError, str]]) -> list[_Pixels]:
        found = []
        for picture, called in batch:
            if isinstance(picture, DatacondenseError):
                raise picture
            found.append(decode(picture, called, size))
        return found

    with ThreadPoolExecutor(threads) as pool:
        try:
            for index, picture in enumerate(_with_error(pictures)):
                check_stop()
                batch.append((picture, name(index)))
                taken += max(each, len(picture) if isinstance(picture, bytes) else 0)
                if taken < _BATCH_BYTES and len(batch) < _BATCH:
                    continue
                ahead.append(pool.submit(decode_batch, batch))
                if isinstance(picture, Image.Image):  # the same one may be there twice
                    wait(ahead)
                if len(ahead) > _AHEAD * threads or index == 0:
                    found = ahead.popleft().result()
                    each = found[0][0].nbytes
                    yield from found
                batch, taken = [], 0
            ahead.append(pool.submit(decode_batch, batch))
            while ahead:
                check_stop()
                yield from ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _with_error(pictures: Iterable[Picture]) -> Iterator[Picture | DatacondenseError]:
    """The pictures and, where there are no more because of an error, that."""
    try:
        yield from pictures
    except DatacondenseError as error:
        yield error
