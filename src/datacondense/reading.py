"""Everything read from disk is checked against one typed description: a dataclass or `msgspec.Struct`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, TypeVar

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from datacondense.errors import DatacondenseError, printable

T = TypeVar("T")

#: For descriptions: an accuracy; a count or a number of seconds, bytes, ….
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Amount = Annotated[float, msgspec.Meta(ge=0)]

#: The beginning of the name of our entry in a safetensors file, which proves whose file it is.
ENTRY = "datacondense."
#: An entry is JSON that begins with this and the SHA-256 of the file, computed while these digits are zero.
_HASH, _NO_HASH = '{"sha256": "', "0" * 64


class Damaged(DatacondenseError):
    """What a file holds does not fit its description."""

    def __init__(self, path: Path, reason: str, advice: str = "") -> None:
        super().__init__(path, reason, advice)
        self.path, self.reason, self.advice = path, reason, advice

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        return printable(f"{self.path} is damaged ({self.reason}){advice}")

    def advising(self, advice: str) -> Damaged:
        """The same error with advice, which the code that reads the file can give."""
        return Damaged(self.path, self.reason, advice)


def read_json(path: Path, kind: type[T] | GenericAlias) -> T:
    """The content of a JSON file, as a `kind`: a dataclass, a `msgspec.Struct`, or builtin types.

    Raises:
        Damaged: the content is something else, or cannot be read.
        FileNotFoundError: there is no such file.
    """
    return _decoded(path, read_bytes(path), kind)


def pack_tensors(tensors: Mapping[str, Tensor], kind: str, about: Any) -> bytes:
    """A safetensors file of `tensors` that describes itself and cannot change unnoticed.

    Its metadata has one entry (of several, safetensors would choose the order), `datacondense.KIND`: JSON of
    `about` (a dataclass, a `msgspec.Struct` or builtin types), with a SHA-256 over the whole file.
    """
    described = msgspec.to_builtins(about)
    entry = json.dumps({"sha256": _NO_HASH} | described, ensure_ascii=False, allow_nan=False)
    own = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    content = safetensors.torch.save(own, metadata={ENTRY + kind: entry})
    return _with_hash(content, hashlib.sha256(content).hexdigest())


def read_tensors(
    path: Path, kind: str, about: type[T] | GenericAlias, *, mapped: bool = False
) -> tuple[T, dict[str, Tensor]]:
    """What `pack_tensors` packed: the description, as an `about`, and the tensors, on the CPU.

    Files from before there was a hash have the entry `KIND`; they are read without it.

    Args:
        mapped: the tensors are views of the file, read when they are needed and shared by processes.

    Raises:
        Damaged: the content is something else, was changed, or cannot be read.
        FileNotFoundError: there is no such file.
    """
    content = read_bytes(path)
    entries = _decoded(path, content[8 : 8 + int.from_bytes(content[:8], "little")], _Header).entries
    entry = entries.get(ENTRY + kind)
    if entry is not None:
        entry = _unchanged(path, content, entry)
    elif kind in entries:
        entry = entries[kind]
    else:
        raise Damaged(path, f"it has no entry '{ENTRY}{kind}'")
    described = _decoded(path, entry.encode(), about)
    try:
        return described, safetensors.torch.load_file(path) if mapped else safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise Damaged(path, f"{type(error).__name__}: {error}") from None


def kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor: equal where one set of tensors can take the place of another."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def read_bytes(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        Damaged: it cannot be read, or is not a regular file.
        FileNotFoundError: there is no such file.
    """
    if path.exists() and not path.is_file():
        raise Damaged(path, "it is not a regular file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(path, error.strerror or str(error)) from None


class _Header(msgspec.Struct):
    entries: dict[str, str] = msgspec.field(name="__metadata__", default_factory=dict)


def _decoded(path: Path, content: bytes, kind: type[T] | GenericAlias) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Damaged(path, str(error)) from None
    except RecursionError:
        raise Damaged(path, "it is nested too deeply") from None


def _unchanged(path: Path, content: bytes, entry: str) -> str:
    """The entry without its hash, which is that of the file."""
    hashed, rest = entry[len(_HASH) :][:64], entry[len(_HASH) + 64 :]
    if hashlib.sha256(_with_hash(content, _NO_HASH)).hexdigest() != hashed:
        raise Damaged(path, "its checksum does not match its content")
    return "{" + rest.removeprefix('"').removeprefix(", ")


def _with_hash(content: bytes, digest: str) -> bytes:
    """The file with `digest` in place of its own; unchanged if it has none."""
    before, place, after = content.partition(json.dumps(_HASH)[1:-1].encode())
    return before + place + digest.encode() + after[64:] if place else content
