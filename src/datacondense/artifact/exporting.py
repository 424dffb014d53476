"""export_condensed(): a condensed set as other tools read it, with a text of how to train on it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from datacondense.artifact.condensed import PARQUET, CondensedDataset
from datacondense.artifact.constants import DD_RANKING, Statistics
from datacondense.artifact.picture import png, to_pil
from datacondense.errors import UsageError, unknown_name
from datacondense.files import MANIFEST, MARKER, require_new_folder, write_folder
from datacondense.machine.provenance import versions
from datacondense.text import shown_shape

Layout = Literal["folder", "npz", "pt", "parquet", "ddranking"]
README = "README.md"


def export_condensed(
    condensed: CondensedDataset,
    out: str | Path,
    to: Layout = "folder",
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
              `mean`, `std`, `class_names`;
            - pt: the same tensors without the names; `torch.load` opens it with `weights_only=True`;
            - parquet: the table that every artifact has: `image`, `pixels` (exact), `label`;
            - ddranking: what DD-Ranking evaluates: `images.pt`, one float32 tensor, class by class,
              normalised with its constants; `labels.pt`, int64; `lr.pt`, the learning rate of the recipe.
        overwrite: replace what `export_condensed` wrote there, if it is unchanged.
        about: more to say in `datacondense.json`; JSON can hold it.

    Raises:
        UsageError: files in `out`; images that the layout cannot hold: PNG of other than 1 or 3 channels, a
            dataset that DD-Ranking has not.
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
        "record": condensed.record | {"recipe": asdict(condensed.recipe)},
        **(about or {}),
    }
    contents[MANIFEST] = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
    write_folder(folder, contents, overwrite=overwrite)
    return folder


def rounded(condensed: CondensedDataset) -> CondensedDataset:
    """The set as PNG files keep it: pixel values clipped to [0, 1] and rounded to 256 steps."""
    images = (condensed.images.clamp(0, 1) * 255).round() / 255
    return replace(condensed, data=replace(condensed.data, images=images))


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
    data, folders = condensed.data, class_folders(condensed.class_names)
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
    return {"condensed.npz": buffer.getvalue()}, _NPZ_CODE


def _pt(condensed: CondensedDataset) -> tuple[dict[str, bytes], str]:
    return {"condensed.pt": _saved(_tensors(condensed))}, _PT_CODE


def _parquet(condensed: CondensedDataset) -> tuple[dict[str, bytes], str]:
    table = {"train.parquet": condensed.contents()[PARQUET]}
    return table, _PARQUET_CODE.format(mean=list(condensed.data.mean), std=list(condensed.data.std))


def _dd_ranking(condensed: CondensedDataset) -> tuple[dict[str, bytes], str]:
    name, statistics = _of_dd_ranking(condensed)
    order = torch.argsort(condensed.labels, stable=True)
    data = replace(condensed.data, mean=statistics[0], std=statistics[1])
    files = {
        "images.pt": _saved(data.normalised(order)),
        "labels.pt": _saved(condensed.labels[order]),
        "lr.pt": _saved(torch.tensor(condensed.recipe.learning_rate)),
    }
    return files, _DD_RANKING_CODE.format(name=name, ipc=len(condensed) // condensed.data.classes,
                                          size=condensed.data.image_shape[1:])  # fmt: skip


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
    data = condensed.data
    return {
        "images": data.images.contiguous(),
        "labels": data.labels.contiguous(),
        "mean": torch.tensor(data.mean),
        "std": torch.tensor(data.std),
    }


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
labels = torch.tensor([classes.index(file.parent.name) for file in files])
```"""

_NPZ_CODE = """\
Pixel values are exact, float32, and may leave [0, 1]. The file also has `class_names`.

```python
import numpy as np
import torch

saved = np.load("condensed.npz")
mean, std = (torch.tensor(saved[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
images = (torch.tensor(saved["images"]) - mean) / std
labels = torch.tensor(saved["labels"])
```"""

_PT_CODE = """\
Pixel values are exact, float32, and may leave [0, 1].

```python
import torch

saved = torch.load("condensed.pt", weights_only=True)
mean, std = (saved[name].view(1, -1, 1, 1) for name in ("mean", "std"))
images = (saved["images"] - mean) / std
labels = saved["labels"]
```"""

_PARQUET_CODE = """\
The column `pixels` has exact values, float32, which may leave [0, 1]; `image` is an 8-bit copy to look at.

```python
import datasets
import torch

rows = datasets.load_dataset("parquet", data_files="train.parquet", split="train").with_format("torch")
mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in ({mean}, {std}))
images = (torch.stack([row["pixels"] for row in rows]) - mean) / std
labels = torch.stack([row["label"] for row in rows])
```"""

_DD_RANKING_CODE = """\
`images.pt` is normalised already, with the constants of DD-Ranking for {name}, class by class.
Without the learning rate DD-Ranking would choose one on the test images: give it `lr.pt`.

```python
import torch
from ddranking.metrics import LabelRobustScoreHard

images, labels, rate = (torch.load(f"{{name}}.pt", weights_only=True) for name in ("images", "labels", "lr"))
judge = LabelRobustScoreHard(dataset="{name}", real_data_path="datasets", ipc={ipc}, im_size={size},
                             model_name="ConvNet-3", eval_full_data=True, save_path="scores.csv")
judge.compute_metrics(image_tensor=images, hard_labels=labels, syn_lr=rate)
```"""


def _readme(condensed: CondensedDataset, to: str, how: str) -> str:
    recipe = asdict(condensed.recipe)
    if not recipe["step_sizes"]:
        del recipe["step_sizes"]
    return _README.format(
        marker=MARKER,
        name=condensed.data.name,
        ipc=condensed.ipc,
        n=len(condensed),
        shape=shown_shape(condensed.data.image_shape),
        k=condensed.data.classes,
        classes=", ".join(condensed.class_names),
        method=condensed.record["method"]["name"],
        manifest=MANIFEST,
        version=versions()["datacondense"],
        how=how,
        recipe="\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in recipe.items()),
    )
