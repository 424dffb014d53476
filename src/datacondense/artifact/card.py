"""The dataset card: the README.md of an artifact, for people and for the Hugging Face Hub."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from datacondense.artifact.record import IMPORTED, recorded_decoder
from datacondense.data.images import ImageDataset
from datacondense.decoders import MultiFormation
from datacondense.files import MARKER
from datacondense.methods import METHODS
from datacondense.networks import Architecture, describe_network, known_network
from datacondense.settings import restored
from datacondense.text import shown_shape
from datacondense.training import Recipe

_CARD = """\
---
task_categories:
- image-classification
size_categories:
- {size}
tags:
- dataset-condensation
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train.parquet
---

{marker}

# {name}, condensed to {ipc} per class

{n} images of {shape} in {classes} classes, {made} the {real_n:,}
training {images} of `{name}`, to train networks on in their place.
{stored}
![The condensed images, class by class](condensed.png)

## Use

```python
import datacondense as dc
condensed = dc.CondensedDataset.load("FOLDER")
torch_dataset = condensed.to_torch()    # {torch}

import datasets
rows = datasets.load_dataset("FOLDER", split="train")    # columns {columns}
```

`pixels` and `condensed.safetensors` hold the exact float32 values; synthetic ones may leave [0, 1].
`image` is an 8-bit copy to look at, clipped. Normalise with mean {mean} and standard deviation {std}.

## Train on it like this

{recipe}

Scores with another recipe may differ much.

## Accuracy

Not measured when this card was written. `datacondense evaluate FOLDER --trials 20` trains 20 fresh networks
by the recipe above and prints their test accuracy, mean ± standard deviation.

## How it was made

{settings}

{start}Condensing network: `{network}`. Seed: {seed}. SHA-256 of the real data: `{fingerprint}`.

Method: {reference}
"""

_DECODED = """
Stored are {n} images, and networks are trained on {decoded}: each stored image is a mosaic of {f} × {f},
whose parts are cut out and scaled up bilinearly to the full size (multi-formation, Kim et al., ICML 2022).
`to_torch` does that; the picture and the parquet file have the images as they are stored.
"""

_SOFT = """
Networks are trained on class probabilities (soft labels); `label` is the class that an image counts for.
"""

_RELABELLED = """\
The probabilities are the mean softmax (temperature {temperature:g}) of {networks} × `{network}`, trained on
all real images for {recipe[epochs]} epochs from seed {seed} on. Compare such a set with others that have soft
labels: these make up for much that images lack.
"""


def card(data: ImageDataset, recipe: Recipe, record: dict[str, Any], stored_bytes: int) -> str:
    """The text; the YAML header lets `datasets.load_dataset` find the parquet file."""
    soft, decoder = data.probabilities is not None, recorded_decoder(record)
    ipc, network = record["ipc"], known_network(record["network"])
    return _CARD.format(
        marker=MARKER,
        size="n<1K" if len(data) < 1000 else "1K<n<10K" if len(data) < 10_000 else "10K<n<100K",
        name=data.name,
        ipc=f"{ipc} image{'s' if ipc > 1 else ''}",
        n=len(data),
        shape=shown_shape(data.image_shape),
        classes=data.classes,
        stored=_stored(data, decoder, stored_bytes, record),
        torch=f"normalised{' decoded' * (decoder.parts > 1)} images and {'targets' if soft else 'labels'}",
        columns="image, pixels, label" + ", probabilities" * soft,
        made=_made(record["method"]["name"], record["versions"]["datacondense"]),
        reference=record["method"].get(
            "reference",
            "B. Zhao, K. R. Mopuri, H. Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021.",
        ),
        real_n=record["data"]["images"],
        images="images (JPEG)" if record["data"].get("jpeg") else "images",
        mean=_numbers(data.mean),
        std=_numbers(data.std),
        recipe=_table(recipe.record()),
        start=_started(record),
        settings=_table(settings) if (settings := settings_in_effect(record, network)) else "No settings.",
        network=describe_network(network, data.image_shape) if network else record["network"],
        seed=record["seed"],
        fingerprint=record["data"]["fingerprint"],
    )


def _made(method: str, version: str) -> str:
    if method == IMPORTED:
        return f"imported by datacondense {version}: they stand for"
    return f"made by datacondense {version} with `{method}` from"


def _started(record: dict[str, Any]) -> str:
    """The set that the run began with, if it did."""
    if not (start := record.get("start")):
        return ""
    made = start["record"]["method"]["name"]
    return f"Begun with the images of another set, by `{made}` (SHA-256: `{start['fingerprint']}`).\n"


def _stored(data: ImageDataset, decoder: MultiFormation, stored_bytes: int, record: dict[str, Any]) -> str:
    """Where what is stored and what networks are trained on differ: what each is, and what storage takes."""
    decoded = _DECODED.format(n=f"{len(data):,}", decoded=f"{len(data) * decoder.parts:,}", f=decoder.factor)
    said = decoded * (decoder.parts > 1) + _SOFT * (data.probabilities is not None)
    if relabelled := record.get("relabelled"):
        said += _RELABELLED.format(**relabelled)
    return f"{said}\nStorage: {stored_bytes:,} bytes (float32; labels int64).\n" if said else ""


def settings_in_effect(record: dict[str, Any], network: Architecture | None) -> dict[str, Any]:
    """Those that took effect: what was left to the method is filled in, where this version knows it."""
    name, settings = record["method"]["name"], dict(record["method"]["settings"])
    with suppress(KeyError, ValueError):  # made by another version, or by a method of the user's
        method = restored(METHODS[name], settings)
        data = record["data"]
        return method.effective(record["ipc"], data["images"], tuple(data["image_shape"]), network)
    return settings


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _table(settings: dict[str, Any]) -> str:
    rows = [
        f"| {key.replace('_', ' ')} | {value if isinstance(value, str) else json.dumps(value)} |"
        for key, value in settings.items()
        if value != ()  # no learned step sizes
    ]
    return "\n".join(["| setting | value |", "|---|---|", *rows])
