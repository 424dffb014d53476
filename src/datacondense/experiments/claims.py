"""Claims: work that several processes or machines see in one folder is done by one of them."""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import msgspec

from datacondense.experiments.workers import heartbeat
from datacondense.reading import Damaged, read_json

#: Seconds between two heartbeats.
HEARTBEAT = 30.0
#: Seconds without one after which a claim may be taken over.
STALE = 600.0


class _Claim(msgspec.Struct, frozen=True):
    host: str
    pid: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    time: float
    token: str


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether the work that the file `path` stands for is ours while the block lasts.

    The file is made by whoever gets the claim, touched every `HEARTBEAT` seconds and removed in the end. One
    that a dead process of this host left, or that was not touched for `STALE` seconds, is taken over.

    Raises:
        Damaged: the file is something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = _Claim(platform.node(), os.getpid(), time.time(), uuid.uuid4().hex)
    if not (_create(path, mine) or (_clear_stale(path) and _create(path, mine))):
        yield False
        return

    def touch() -> None:
        with suppress(OSError):
            os.utime(path)

    try:
        with heartbeat(HEARTBEAT, touch):
            yield True
    finally:
        with suppress(Damaged):
            if _read(path) == mine:
                path.unlink(missing_ok=True)


def _create(path: Path, claim: _Claim) -> bool:
    """Make the file with its content in one step: written aside, then linked, which fails if it is there."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    aside.write_bytes(msgspec.json.encode(claim))
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    return True


def _clear_stale(path: Path) -> bool:
    """Remove the claim if no living process holds it."""
    found = _read(path)
    if found is None or not _stale(path, found):
        return found is None
    # Another process may have done so and made its own claim meanwhile: what is moved away is looked at.
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    if (moved := _read(aside)) != found and moved is not None:
        _create(path, moved)
    aside.unlink()
    return moved == found


def _stale(path: Path, claim: _Claim) -> bool:
    try:
        if time.time() - path.stat().st_mtime > STALE:
            return True
        if claim.host == platform.node():
            os.kill(claim.pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return True
    except PermissionError:  # the process of another user
        return False
    return False


def _read(path: Path) -> _Claim | None:
    try:
        return read_json(path, _Claim)
    except FileNotFoundError:
        return None
