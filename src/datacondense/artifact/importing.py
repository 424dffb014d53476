"""import_condensed(): a condensed set that others published becomes an artifact like any other."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datacondense.artifact.condensed import CondensedDataset
from datacondense.artifact.constants import CIFAR100_OF_OTHERS, PUBLISHED, Statistics
from datacondense.artifact.published import Published, read_published, zca_whitened
from datacondense.artifact.record import IMPORTED, SCHEMA, decoder_record
from datacondense.augmentation import suited
from datacondense.data import DataSplits, ImageDataset, load_dataset
from datacondense.data.images import improbable
from datacondense.decoders import MultiFormation
from datacondense.errors import DatacondenseError, UsageError, unknown_name
from datacondense.machine.provenance import versions
from datacondense.text import counted, shown_shape
from datacondense.training import Recipe

#: Real images that are compared with those that may be whitened.
_COMPARED = 1000
#: Standard errors by which a correlation must exceed that of noise to say something.
_CERTAIN = 5
#: IDC clamps pixel values before its last step, which may leave [0, 1] by a little.
_BEYOND = 0.5


def import_condensed(
    file: str | Path,
    data: ImageDataset | DataSplits | str | Path,
    *,
    statistics: str | Statistics | None = None,
    formation: int = 1,
    recipe: Recipe | None = None,
    not_whitened: bool = False,
) -> CondensedDataset:
    """A condensed set that others published, with the real data that it stands for.

    Nothing in the file is run.

    Args:
        file: one of
            - `{'data': [[images, labels], …], …}`, normalised, of which the last entry counts: what the code
              of DC, DSA, DM and DC-BENCH saves (`res_DSA_CIFAR10_ConvNet_10ipc.pt`);
            - `[images, labels]`, pixel values in [0, 1]: IDC and DREAM (`data.pt`);
            - `images_best.pt` with `labels_best.pt` beside it, normalised: MTT and what follows it. Labels
              may be class probabilities or, as DATM's are, logits, whose softmax is taken;
            - `images.pt`, normalised, with `labels.pt` and `lr.pt` where there are: DD-Ranking;
            - a folder of image files by class: `CLASS/*.png`, by name or by number.
        data: the real images, whose test images the set will be evaluated on: splits, or what `load_dataset`
            takes.
        statistics: the mean and standard deviation per channel by which the images are normalised, or the
            name of the dataset whose published constants they are; by default those of `data`, by its name.
            Networks are trained and tested with them, as in the code that made the set. A folder has no
            normalisation of its own: there the default is what was measured over the real images.
        formation: f of multi-formation: each stored image is a mosaic of f × f, which are decoded for
            training (IDC and DREAM: 2).
        recipe: how networks are to be trained; by default the paper's (1000 epochs with DSA's augmentation
            for `[images, labels]` and `images….pt`, whose methods learn under it), with the learning rate of
            `lr.pt`.
        not_whitened: accept images that look ZCA-whitened.

    Raises:
        UsageError: a file of another kind; images that do not fit the real ones; as many classes, but not
            equally many images of each; unknown statistics; ZCA-whitened images, of which the matrix is
            missing: a file `images_zca_….pt` lies beside them, or they have the small variance and the
            short correlation that whitening leaves.
        DatacondenseError: a file that is damaged or would run code, NaN or infinite pixels.
    """
    path = Path(file).expanduser()
    real = _training_images(data)
    real.require_trainable()
    found = read_published(path)
    _require_fitting(path, found, real)
    mean, std = _statistics(found, real, statistics)
    if found.layout == "images" and not not_whitened and (evidence := _whitened(found.images, real)):
        raise zca_whitened(path, f"{evidence}; if that is wrong, say --not-whitened")
    images = _pixels(path, found, mean, std)
    decoder = MultiFormation(formation)
    decoder.decode(images[:1])  # refuses what cannot be a mosaic
    labels, probabilities = _targets(path, found, real)
    ipc = _balanced(path, labels, real)
    settings = {
        "file": path.name,
        "sha256": found.sha256,
        "layout": found.layout,
        "labels": "hard" if probabilities is None else "soft",
        "statistics": statistics if isinstance(statistics, str) else "given" if statistics else "usual",
        "jpeg": found.jpeg,
    }
    record = {
        "schema": SCHEMA,
        "method": {
            "name": IMPORTED,
            "settings": settings,
            "reference": f"made elsewhere, read from `{path.name}`",
        },
        "network": "unknown",
        "ipc": ipc,
        "seed": real.source.split_seed or 0 if real.source else 0,
        "precision": "unknown",
        "compiled": False,
        "class_names": list(real.class_names),
        "mean": list(mean),
        "std": list(std),
        "data": real.description,
        "versions": versions(),
        **decoder_record(decoder),
    }
    stored: dict[str, Any] = json.loads(json.dumps(record))
    kept = ImageDataset(images, labels, real.class_names, mean, std, real.name, probabilities=probabilities)
    return CondensedDataset(kept, recipe or _recipe(found, real), stored)


def _training_images(data: ImageDataset | DataSplits | str | Path) -> ImageDataset:
    if isinstance(data, ImageDataset):
        return data
    return load_dataset(data).train


def _require_fitting(path: Path, found: Published, real: ImageDataset) -> None:
    """Raise an error where shapes differ: before anything of the file's size is computed."""
    shape = tuple(found.images.shape[1:])
    if shape != real.image_shape:
        raise UsageError(
            f"{path}: the images are {shown_shape(shape)}, those of {real.name} "
            f"{shown_shape(real.image_shape)}; they must agree: name the dataset that the set stands for "
            "with --data, and --resize it if need be"
        )
    if not 1 <= len(found.images) <= len(real):
        raise UsageError(
            f"{path}: found {counted(len(found.images), 'image')}; expected at least one per class and no "
            f"more than the {len(real):,} real ones"
        )
    if found.labels is not None and found.labels.ndim and len(found.labels) != len(found.images):
        raise UsageError(
            f"{path}: found {len(found.images):,} images and {len(found.labels):,} labels; "
            "one label per image is needed"
        )


def _statistics(found: Published, real: ImageDataset, chosen: str | Statistics | None) -> Statistics:
    """Mean and standard deviation per channel."""
    if isinstance(chosen, tuple):
        mean, std = chosen
        channels = real.image_shape[0]
        if not len(mean) == len(std) == channels or min(std) <= 0:
            raise UsageError(
                f"mean and standard deviation must have {counted(channels, 'number')} each, one per channel, "
                f"the latter above 0; found {mean} and {std}"
            )
        return mean, std
    if chosen is None and found.layout == "folder":
        return real.mean, real.std
    name = chosen or real.known_as or ""
    if name in PUBLISHED:
        known = PUBLISHED[name]
        if chosen is None and name == "cifar100" and found.layout != "data":
            known = CIFAR100_OF_OTHERS
        return _statistics(found, real, known)
    if chosen:
        raise unknown_name("dataset with published statistics", chosen, PUBLISHED)
    raise UsageError(
        f"how the images were normalised cannot be told: no published constants of {real.name} are known; "
        "give --mean and --std, or --statistics with the name of the dataset whose constants they are"
    )


def _pixels(
    path: Path, found: Published, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "n c h w"]:
    if found.images.dtype == torch.uint8:
        return found.images.float() / 255
    images = found.images.float().contiguous()
    if not images.isfinite().all():
        bad = int((~images.isfinite()).flatten(1).any(1).nonzero()[0])
        raise DatacondenseError(f"{path}: image {bad} has NaN or infinite values; every pixel must be finite")
    if found.normalised:
        scale, offset = (torch.tensor(values).view(1, -1, 1, 1) for values in (std, mean))
        return images * scale + offset
    low, high = float(images.min()), float(images.max())
    if low < -_BEYOND or high > 1 + _BEYOND:
        raise UsageError(
            f"{path}: [images, labels] are expected to be pixel values in [0, 1]; found {low:.3g} to "
            f"{high:.3g}. Normalised images are read from {{'data': [[images, labels]]}}"
        )
    return images


def _targets(
    path: Path, found: Published, real: ImageDataset
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n k"] | None]:
    """The class of each image, and the probabilities of all classes where they are given.

    An image counts for its likeliest class; where those are not balanced, as learned labels may not be, the
    images are taken to be in the order of the classes, as in the code of MTT and DATM.
    """
    n, k = len(found.images), real.classes
    if found.labels is None or found.labels.shape != (n, k) or not found.labels.is_floating_point():
        return _class_labels(path, found, real), None
    given = found.labels.double()
    if not given.isfinite().all():
        raise DatacondenseError(f"{path}: a label has NaN or infinite values")
    probabilities = (given.softmax(1) if improbable(given, n, k) else given).float()
    labels = probabilities.argmax(1)
    if n % k == 0 and not (torch.bincount(labels, minlength=k) == n // k).all():
        labels = torch.arange(k).repeat_interleave(n // k)
    return labels, probabilities


def _class_labels(path: Path, found: Published, real: ImageDataset) -> Int[Tensor, " n"]:
    """The labels as positions in the class names of the real data."""
    n, k = len(found.images), real.classes
    if found.labels is None:  # class by class
        if n % k:
            raise UsageError(
                f"{path}: found {n:,} images without labels; expected equally many of {k} classes"
            )
        return torch.arange(k).repeat_interleave(n // k)
    if found.labels.shape != (n,) or found.labels.is_floating_point() or found.labels.dtype == torch.bool:
        raise UsageError(
            f"{path}: the labels are {found.labels.dtype} of shape {tuple(found.labels.shape)}; expected "
            f"{n:,} integers from 0 to {k - 1}"
        )
    labels = found.labels.long()
    if found.class_names is not None:
        return torch.tensor(_positions(path, found.class_names, real.class_names))[labels]
    if int(labels.min()) < 0 or int(labels.max()) >= k:
        raise UsageError(
            f"{path}: labels run from {int(labels.min())} to {int(labels.max())}; expected 0 to {k - 1}, "
            f"the classes of {real.name}"
        )
    return labels


def _positions(path: Path, folders: tuple[str, ...], names: tuple[str, ...]) -> list[int]:
    """For each folder its class: by name, or by the number that it begins with."""
    if set(folders) == set(names):
        return [names.index(folder) for folder in folders]
    numbers = [int(match[0]) if (match := re.match(r"\d{1,9}", folder)) else -1 for folder in folders]
    if sorted(numbers) == list(range(len(names))):
        return numbers
    raise UsageError(
        f"{path}: the folders {', '.join(folders[:5])}… are neither called as the classes, "
        f"{', '.join(names[:5])}…, nor do they begin with the numbers 0 to {len(names) - 1}"
    )


def _balanced(path: Path, labels: Int[Tensor, " n"], real: ImageDataset) -> int:
    """Images per class."""
    counts = torch.bincount(labels, minlength=real.classes)
    if counts.min() != counts.max():
        few, many = int(counts.argmin()), int(counts.argmax())
        raise UsageError(
            f"{path}: found {counts[few]} of class {real.class_names[few]!r} and {counts[many]} of class "
            f"{real.class_names[many]!r}; a condensed set has equally many images of each class"
        )
    return int(counts[0])


def _recipe(found: Published, real: ImageDataset) -> Recipe:
    augmented = found.layout in ("pair", "images")
    recipe = Recipe.of_paper(real.known_as, suited("dsa", real.known_as) if augmented else "none")
    return recipe if found.learning_rate is None else replace(recipe, learning_rate=found.learning_rate)


def _whitened(images: Float[Tensor, "n c h w"], real: ImageDataset) -> str | None:
    """What tells that images are ZCA-whitened; None where nothing does.

    Whitening (of CIFAR-10, with MTT's ε of 0.1) leaves a standard deviation of 0.25 where normalising gives
    1.24, and from one neighbour to the next but one the correlation of pixels falls to 0.43 of it, in real
    images to 0.89. White noise, as learning adds, lowers both correlations alike and leaves their ratio.
    """
    usual = real.normalised(torch.arange(min(len(real), _COMPARED)))
    spread, usual_spread = float(images.float().std()), float(usual.std())
    if spread < usual_spread / 2:
        return f"their standard deviation is {spread:.2f}, that of normalised real images {usual_spread:.2f}"
    (near, far), (usual_near, usual_far) = _correlations(images.float()), _correlations(usual)
    told = near > _CERTAIN / images.numel() ** 0.5 and usual_far > usual_near / 2
    if told and far / near < 0.7 * usual_far / usual_near:
        return (
            f"their correlation with the next pixel but one is {far / near:.0%} of that with the next one, "
            f"in real images {usual_far / usual_near:.0%}"
        )
    return None


def _correlations(images: Float[Tensor, "n c h w"]) -> tuple[float, float]:
    """Of a pixel with the next one in its row, and with the one after that."""
    centred = images - images.mean((0, 2, 3), keepdim=True)
    power = centred.square().mean()
    near, far = ((centred[..., d:] * centred[..., :-d]).mean() / power for d in (1, 2))
    return float(near), float(far)
