"""Files in which others publish condensed sets, read without running anything of theirs."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from datacondense.data.folders import read_path
from datacondense.data.raw import Reading
from datacondense.errors import DatacondenseError, UsageError
from datacondense.reading import read_bytes
from datacondense.text import shown_shape

#: The layouts, with who writes them.
LAYOUTS = {
    "data": "{'data': [[images, labels], …]}, normalised; the last entry counts (DC, DSA, DM, DC-BENCH)",
    "pair": "[images in [0, 1], labels] (IDC, DREAM)",
    "images": "images_best.pt, normalised, with labels_best.pt beside it (MTT), or images.pt (DD-Ranking)",
    "folder": "a folder of image files by class (DD-Ranking and others)",
}


@dataclass(frozen=True)
class Published:
    """What a file holds; whether that fits the dataset is for others to say."""

    layout: str
    """A key of `LAYOUTS`."""
    images: Shaped[Tensor, "n ..."]
    """Finite numbers; uint8, of a folder."""
    labels: Tensor | None
    """Of any shape and type; None: not given, class by class."""
    sha256: str
    """Of the file with the images, or of all files of a folder with their names."""
    class_names: tuple[str, ...] | None = None
    """The names of the folders."""
    learning_rate: float | None = None
    """`lr.pt` next to the images: learned with them."""
    jpeg: bool = False

    @property
    def normalised(self) -> bool:
        """Whether the images are, and not pixel values."""
        return self.layout in ("data", "images")


def read_published(path: Path) -> Published:
    """The condensed set at `path`.

    Raises:
        UsageError: there is nothing, or nothing like any of `LAYOUTS`; images that were ZCA-whitened.
        DatacondenseError: a file that is damaged or would run code, values that are not finite numbers.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    content = read_bytes(path)
    found, digest = _load(path, content), hashlib.sha256(content).hexdigest()
    if isinstance(found, dict):
        return _of_experiments(path, found, digest)
    if isinstance(found, list | tuple) and len(found) == 2:
        return Published("pair", _images(path, found[0]), _labels(path, found[1]), digest)
    if isinstance(found, Tensor):
        return _of_images(path, found, digest)
    raise _unknown(path, f"a {type(found).__name__}")


def _of_experiments(path: Path, found: dict[Any, Any], digest: str) -> Published:
    if "data" not in found:
        keys = ", ".join(sorted(map(repr, found))[:5]) or "no keys"
        raise _unknown(path, f"a dictionary with {keys}")
    sets = found["data"]
    if not isinstance(sets, list | tuple) or not sets:
        raise _unknown(path, "no sets under 'data'")
    last = sets[-1]
    if not isinstance(last, list | tuple) or len(last) != 2:
        raise _unknown(path, f"a {type(last).__name__} as the last entry of 'data', not [images, labels]")
    return Published("data", _images(path, last[0]), _labels(path, last[1]), digest)


def _of_images(path: Path, found: Tensor, digest: str) -> Published:
    if not path.name.startswith("images"):
        raise UsageError(
            f"{path} holds one tensor; of those, files called images….pt are read, labels….pt beside them"
        )
    whitened = sorted(path.parent.glob("images_zca_*.pt"))
    if path.name.startswith("images_zca_") or whitened:
        raise zca_whitened(path, f"{(whitened or [path])[0].name} is written for whitened sets alone")
    images = _images(path, found)
    labels = path.with_name(path.name.replace("images", "labels", 1))
    rate = path.with_name("lr.pt")
    if not labels.exists() and path.name != "images.pt":
        raise UsageError(f"{path} has no labels: put {labels.name}, which was written with it, beside it")
    return Published(
        "images",
        images,
        _labels(labels, _load(labels, read_bytes(labels))) if labels.exists() else None,
        digest,
        learning_rate=_rate(rate) if rate.exists() else None,
    )


def _of_folder(path: Path) -> Published:
    found = read_path(path, Reading())
    split = found.train
    if found.test is not None or split.class_names is None:
        raise UsageError(
            f"{path} is not a folder of image files by class (CLASS/*.png), without other splits"
        )
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")):
        digest.update(f"{file.relative_to(path).as_posix()}\0".encode(errors="surrogateescape"))
        digest.update(hashlib.sha256(read_bytes(file)).digest())
    positions = {name: c for c, name in enumerate(split.class_names)}
    labels = torch.tensor([positions[str(label)] for label in split.labels])
    return Published("folder", split.images, labels, digest.hexdigest(), split.class_names, jpeg=split.jpeg)


def zca_whitened(path: Path, evidence: str) -> UsageError:
    """Why such images are not imported."""
    return UsageError(
        f"{path} holds ZCA-whitened images ({evidence}): networks trained on them need test images whitened "
        "by the same matrix, which is not published with them. Import a set that was made without --zca"
    )


def _unknown(path: Path, found: str) -> UsageError:
    return UsageError(f"{path} holds {found}; expected one of: {'; '.join(LAYOUTS.values())}")


class _Number:
    """In the place of NumPy's scalars, in which DC's files hold accuracies: nothing of NumPy is called."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


_NUMBERS: list[Any] = [
    (_Number, name)
    for name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
]


def _load(path: Path, content: bytes) -> Any:
    """Tensors, numbers and texts, in lists and dictionaries. Code is never run."""
    try:
        with torch.serialization.safe_globals(_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how old a file is
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it would call {named[1]}" if named else "it is not PyTorch's, or damaged"
        raise DatacondenseError(
            f"{path} is not read, for {what}; expected tensors, numbers and texts alone"
        ) from None
    except Exception as error:  # of damaged files, nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DatacondenseError(f"{path} cannot be read as a file of PyTorch's ({reason})") from None


def _tensor(path: Path, found: Any, what: str) -> Tensor:
    if not isinstance(found, Tensor):
        raise _unknown(path, f"a {type(found).__name__} as {what}")
    if (
        found.layout != torch.strided
        or found.device.type != "cpu"
        or found.is_quantized
        or found.is_complex()
    ):
        raise DatacondenseError(f"{path}: the {what} are not a plain tensor of numbers")
    return found.detach()


def _images(path: Path, found: Any) -> Tensor:
    images = _tensor(path, found, "images")
    if not images.is_floating_point():
        raise DatacondenseError(f"{path}: the images are {images.dtype}; expected floating-point numbers")
    if images.ndim != 4:
        raise DatacondenseError(
            f"{path}: the images have the shape {shown_shape(images.shape) or '()'}; "
            "expected images × channels × height × width"
        )
    return images


def _labels(path: Path, found: Any) -> Tensor:
    return _tensor(path, found, "labels")


def _rate(path: Path) -> float:
    rate = _tensor(path, _load(path, read_bytes(path)), "learning rate")
    if rate.numel() != 1:
        raise DatacondenseError(f"{path} holds {rate.numel():,} numbers; expected one, a learning rate")
    return float(rate)
