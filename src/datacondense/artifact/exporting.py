"""export_condensed(): a condensed set as other tools read it, with a text of how to train on it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from datacondense.artifact.condensed import CondensedDataset, parquet
from datacondense.artifact.constants import DD_RANKING, Statistics
from datacondense.artifact.picture import png, to_pil
from datacondense.errors import UsageError, unknown_name
from datacondense.files import MANIFEST, MARKER, require_new_folder, write_folder
from datacondense.machine.provenance import versions
from datacondense.text import shown_shape

Layout = Literal["folder", "npz", "pt", "parquet", "ddranking"]
README = "README.md"
#: Of a class probability whose logarithm is taken.
_LEAST = 1e-12


def export_condensed(
    condensed: CondensedDataset,
    out: str | Path,
    to: str = "folder",
    *,
    overwrite: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write a condensed set to the folder `out` for other tools, whole or not at all.

    Each has a README.md that says how to normalise and train, and a `datacondense.json` with the record of
    the set and a hash of each file.

    Args:
        to: one of
            - folder: PNG files, 8 bit, in a folder per class: values outside [0, 1] are clipped and the
              others rounded, see `rounded`;
            - npz: arrays `images` (float32, n c h w, in pixel space: not normalised), `labels` (int64),
              `mean`, `std`, `class_names`, and `probabilities` (float32, n k) of a set that has them;
            - pt: the same tensors without the names; `torch.load` opens it with `weights_only=True`;
            - parquet: a table of `image` (8 bit, to look at), `pixels` (exact) and `label`;
            - ddranking: what DD-Ranking evaluates: `images.pt`, one float32 tensor, class by class,
              normalised with its constants; `labels.pt`, int64, or float32 logits whose softmax is the class
              probabilities; `lr.pt`, the learning rate of the recipe.
            What networks are trained on is written: decoded images, where others are stored.
        overwrite: replace what `export_condensed` wrote there, if it is unchanged.
        about: more to say in `datacondense.json`; JSON can hold it.

    Raises:
        UsageError: files in `out`; what the layout cannot hold: PNG files other than 1 or 3 channels and
            class probabilities; DD-Ranking a dataset that it has not.
        DatacondenseError: no permission or no space.
    """
    if to not in _LAYOUTS:
        raise unknown_name("export format", to, _LAYOUTS)
    folder = Path(out).expanduser()
    require_new_folder(folder, overwrite=overwrite)
    files, how = _LAYOUTS[to](condensed)
    contents = files | {README: _readme(condensed, to, how).encode()}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = {
        "versions": versions(),
        "export": to,
        "files": hashes,
        "record": condensed.record | {"recipe": condensed.recipe.record()},
        **(about or {}),
    }
    contents[MANIFEST] = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
    write_folder(folder, contents, overwrite=overwrite)
    return folder


def rounded(condensed: CondensedDataset) -> CondensedDataset:
    """The set as PNG files keep what is trained on: values clipped to [0, 1] and rounded to 256 steps."""
    data = condensed.training_set()
    images = (data.images.clamp(0, 1) * 255).round() / 255
    record = {name: entry for name, entry in condensed.record.items() if name != "decoder"}
    record["ipc"] *= condensed.decoder.parts
    return replace(condensed, data=replace(data, images=images), record=record)


def class_folders(names: tuple[str, ...]) -> list[str]:
    """A name of a folder for each class, in an order that tools which sort the folders keep.

    The class's own where that works; else its number is in front, and what folders cannot be called is left
    out.
    """
    usable = [re.sub(r"[^\w .,+()'&=-]", "-", name).strip(". ")[:80] for name in names]
    if usable == list(names) == sorted(set(names)) and all(names):
        return usable
    digits = len(str(len(names) - 1))
    return [f"{c:0{digits}}_{name}" for c, name in enumerate(usable)]


def _folder(condensed: CondensedDataset) -> tuple[dict[str, bytes], str]:
    channels = condensed.data.image_shape[0]
    if channels not in (1, 3):
        raise UsageError(f"PNG files have 1 or 3 channels; found {channels}: choose --to npz, pt or parquet")
    if condensed.probabilities is not None:
        raise UsageError(
            "PNG files have no class probabilities, which this set has: choose --to npz, pt or parquet"
        )
    data, folders = condensed.training_set(), class_folders(condensed.class_names)
    files = {
        f"{folders[c]}/{i:05}.png": png(to_pil(data.images[index]))
        for c, members in enumerate(data.indices_by_class)
        for i, index in enumerate(members.tolist())
    }
    return files, _FOLDER_CODE.format(axes="unsqueeze(1)" if channels == 1 else "permute(0, 3, 1, 2)",
                                      mean=list(data.mean), std=list(data.std))  # fmt: skip


def _npz(condensed: CondensedDataset) -> tuple[dict[str, bytes], str]:
    buffer = io.BytesIO()
    arrays = {name: tensor.numpy() for name, tensor in _tensors(condensed).items()}
    np.savez(buffer, allow_pickle=False, **arrays, class_names=np.array(condensed.class_names))
    return {"condensed.npz": buffer.getvalue()}, _NPZ_CODE.format(targets=_targets(condensed))


def _pt(condensed: CondensedDataset) -> tuple[dict[str, bytes], str]:
    return {"condensed.pt": _saved(_tensors(condensed))}, _PT_CODE.format(targets=_targets(condensed))


def _parquet(condensed: CondensedDataset) -> tuple[dict[str, bytes], str]:
    data = condensed.training_set()
    targets = _targets(condensed).replace("labels", "label")  # the name of the column
    code = _PARQUET_CODE.format(mean=list(data.mean), std=list(data.std), targets=targets)
    return {"train.parquet": parquet(data)}, code


def _dd_ranking(condensed: CondensedDataset) -> tuple[dict[str, bytes], str]:
    name, statistics = _of_dd_ranking(condensed)
    data = condensed.training_set()
    data = replace(data, mean=statistics[0], std=statistics[1])
    data = data.subset(torch.argsort(data.labels, stable=True))
    soft = data.probabilities is not None
    files = {
        "images.pt": _saved(data.normalised()),
        "labels.pt": _saved(data.targets.clamp_min(_LEAST).log() if soft else data.labels),
        "lr.pt": _saved(torch.tensor(condensed.recipe.learning_rate)),
    }
    judge, labels = ("Soft", "soft_labels") if soft else ("Hard", "hard_labels")
    settings = f"""dataset="{name}", ipc={len(data) // data.classes}, im_size={data.image_shape[1:]}"""
    return files, _DD_RANKING_CODE.format(name=name, judge=judge, labels=labels, settings=settings)


def _of_dd_ranking(condensed: CondensedDataset) -> tuple[str, Statistics]:
    key = re.sub(r"[^a-z0-9]", "", condensed.data.name.lower())
    if key not in DD_RANKING:
        names = ", ".join(name for name, _, _ in DD_RANKING.values())
        raise UsageError(f"DD-Ranking evaluates {names}; found {condensed.data.name}: choose another --to")
    name, side, statistics = DD_RANKING[key]
    if condensed.data.image_shape != (3, side, side):
        raise UsageError(
            f"DD-Ranking evaluates {name} at 3×{side}×{side}; found {shown_shape(condensed.data.image_shape)}"
        )
    return name, statistics


def _tensors(condensed: CondensedDataset) -> dict[str, Tensor]:
    data = condensed.training_set()
    soft = {} if data.probabilities is None else {"probabilities": data.probabilities}
    return soft | {
        "images": data.images.contiguous(),
        "labels": data.labels.contiguous(),
        "mean": torch.tensor(data.mean),
        "std": torch.tensor(data.std),
    }


def _targets(condensed: CondensedDataset) -> str:
    """What networks learn."""
    return "labels" if condensed.probabilities is None else "probabilities"


def _saved(tensors: Tensor | dict[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


_LAYOUTS: dict[str, Callable[[CondensedDataset], tuple[dict[str, bytes], str]]] = dict(
    zip(get_args(Layout), (_folder, _npz, _pt, _parquet, _dd_ranking), strict=True)
)

_README = """\
{marker}

# {name}, condensed to {ipc} per class

{n} images of {shape} in {k} classes ({classes}), exported by datacondense {version}.
Method: `{method}`. Its settings, seed and versions are in `{manifest}`.

## Normalise

{how}

Normalise real images in the same way, `(pixels / 255 - mean) / std`, before you test a network on them.

## Train

SGD on the mean cross-entropy, in shuffled batches. Scores with another recipe may differ much.

{recipe}
"""

_FOLDER_CODE = """\
The files hold 8 bits; the exact values, which may leave [0, 1], are lost. `datacondense export` with
`--to folder --check` measures what that costs. Folders sort in the order of the labels, so torchvision's
`ImageFolder` reads them, too.

```python
from pathlib import Path

import numpy as np
import torch
from PIL import Image

files = sorted(Path(".").glob("*/*.png"))
classes = sorted({{file.parent.name for file in files}})
pixels = torch.stack([torch.tensor(np.array(Image.open(file))) for file in files]).{axes} / 255
mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in ({mean}, {std}))
images = (pixels - mean) / std
targets = torch.tensor([classes.index(file.parent.name) for file in files])
```"""

_NPZ_CODE = """\
Pixel values are exact, float32, and may leave [0, 1]. The file also has `class_names`.

```python
import numpy as np
import torch

saved = np.load("condensed.npz")
mean, std = (torch.tensor(saved[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
images = (torch.tensor(saved["images"]) - mean) / std
targets = torch.tensor(saved["{targets}"])
```"""

_PT_CODE = """\
Pixel values are exact, float32, and may leave [0, 1].

```python
import torch

saved = torch.load("condensed.pt", weights_only=True)
mean, std = (saved[name].view(1, -1, 1, 1) for name in ("mean", "std"))
images = (saved["images"] - mean) / std
targets = saved["{targets}"]
```"""

_PARQUET_CODE = """\
The column `pixels` has exact values, float32, which may leave [0, 1]; `image` is an 8-bit copy to look at.

```python
import datasets
import torch

rows = datasets.load_dataset("parquet", data_files="train.parquet", split="train").with_format("torch")
mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in ({mean}, {std}))
images = (torch.stack([row["pixels"] for row in rows]) - mean) / std
targets = torch.stack([row["{targets}"] for row in rows])
```"""

_DD_RANKING_CODE = """\
`images.pt` is normalised already, with the constants of DD-Ranking for {name}, class by class.
Without the learning rate DD-Ranking would choose one on the test images: give it `lr.pt`.

```python
import torch
from ddranking.metrics import LabelRobustScore{judge}

images, labels, rate = (torch.load(f"{{name}}.pt", weights_only=True) for name in ("images", "labels", "lr"))
judge = LabelRobustScore{judge}({settings}, model_name="ConvNet-3")
judge.compute_metrics(image_tensor=images, {labels}=labels, syn_lr=rate)
```"""


def _readme(condensed: CondensedDataset, to: str, how: str) -> str:
    recipe = condensed.recipe.record()
    if not recipe["step_sizes"]:
        del recipe["step_sizes"]
    return _README.format(
        marker=MARKER,
        name=condensed.data.name,
        ipc=condensed.ipc,
        n=len(condensed.training_set()),
        shape=shown_shape(condensed.data.image_shape),
        k=condensed.data.classes,
        classes=", ".join(condensed.class_names),
        method=condensed.record["method"]["name"],
        manifest=MANIFEST,
        version=versions()["datacondense"],
        how=how,
        recipe="\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in recipe.items()),
    )
