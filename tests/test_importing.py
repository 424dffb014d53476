"""Sets that others published, written as the original code writes them, and files that mean harm."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import datacondense as dc
from conftest import toy_dataset
from datacondense.artifact.constants import PUBLISHED
from datacondense.cli import main

pytestmark = pytest.mark.usefixtures("untouched_random_state")

IPC, K = 2, 3
N = IPC * K
MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in PUBLISHED["cifar10"])


@pytest.fixture(scope="module")
def real() -> dc.ImageDataset:
    """Toy images that are called CIFAR-10, whose constants are published."""
    return replace(toy_dataset(channels=3), name="cifar10")


def drawn(low: float, high: float) -> Tensor:
    return torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * (high - low) + low


def by_class() -> Tensor:
    """As all of the published code makes its labels."""
    return torch.arange(K).repeat_interleave(IPC)


def saved_by_dc(path: Path, images: Tensor, labels: Tensor) -> Path:
    """`main.py` of VICO-UoE/DatasetCondensation, after its second experiment of two; also DSA, DM, DC-BENCH.

    Its accuracies are NumPy's scalars: a sum of equal labels, divided by their number.
    """
    accuracy = np.sum(np.equal(np.arange(4), np.arange(4))) / 5
    data_save = [[torch.zeros_like(images), labels], [images, labels]]
    torch.save({"data": data_save, "accs_all_exps": {"ConvNet": [accuracy, accuracy]}}, path)
    return path


def saved_by_idc(path: Path, images: Tensor, labels: Tensor) -> Path:
    """`condense.py` of snu-mllab/Efficient-Dataset-Condensation; also DREAM."""
    torch.save([images, labels], path)
    return path


def saved_by_mtt(folder: Path, images: Tensor, labels: Tensor) -> Path:
    """`distill.py` of GeorgeCazenavette/mtt-distillation."""
    torch.save(images, folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    return folder / "images_best.pt"


def test_of_dc_the_last_set_counts_and_is_normalised_again(real: dc.ImageDataset, tmp_path: Path) -> None:
    images = drawn(-3, 3)
    file = saved_by_dc(tmp_path / "res_DC_CIFAR10_ConvNet_2ipc.pt", images, by_class())
    found = dc.import_condensed(file, real)
    torch.testing.assert_close(found.to_torch().tensors[0], images)
    torch.testing.assert_close(found.images, images * STD + MEAN)
    assert torch.equal(found.labels, by_class())
    assert (found.data.mean, found.data.std) == PUBLISHED["cifar10"]
    assert found.class_names == real.class_names
    assert found.recipe == dc.Recipe()


def test_of_idc_pixels_are_kept(real: dc.ImageDataset, tmp_path: Path) -> None:
    images = drawn(0, 1)
    found = dc.import_condensed(saved_by_idc(tmp_path / "data.pt", images, by_class()), real)
    assert torch.equal(found.images, images)
    assert (found.data.mean, found.data.std) == PUBLISHED["cifar10"]
    assert found.recipe == dc.Recipe(epochs=1000, augmentation="dsa")


def test_of_mtt_the_labels_lie_beside(real: dc.ImageDataset, tmp_path: Path) -> None:
    images = drawn(-3, 3)
    found = dc.import_condensed(saved_by_mtt(tmp_path, images, by_class().flip(0)), real)
    torch.testing.assert_close(found.to_torch().tensors[0], images)
    assert torch.equal(found.labels, by_class().flip(0))


@pytest.mark.parametrize("names", [("row 0", "row 1", "row 2"), ("00002", "00000", "00001")])
def test_image_folders_are_matched_by_name_or_number(
    names: tuple[str, ...], real: dc.ImageDataset, tmp_path: Path
) -> None:
    for c, name in enumerate(names):
        (tmp_path / name).mkdir()
        for i in range(IPC):
            picture = np.full((8, 8, 3), 10 * c + i, np.uint8)
            picture[0, 0] = (200, 100, 50)  # it has colours
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    found = dc.import_condensed(tmp_path, real)
    classes = [0, 1, 2] if names[0] == "row 0" else [2, 0, 1]
    shown = (found.images[:, 0, 1, 1] * 255).round().long()
    assert {(int(v), int(c)) for v, c in zip(shown, found.labels, strict=True)} == {
        (10 * position + i, c) for position, c in enumerate(classes) for i in range(IPC)
    }
    assert (found.data.mean, found.data.std) == (real.mean, real.std)


@pytest.mark.parametrize(
    ("layout", "expected"), [("data", PUBLISHED["cifar100"]), ("pair", PUBLISHED["cifar10"])]
)
def test_who_normalised_cifar100_tells_how(
    layout: str, expected: object, real: dc.ImageDataset, tmp_path: Path
) -> None:
    write = saved_by_dc if layout == "data" else saved_by_idc
    file = write(tmp_path / "data.pt", drawn(0, 1), by_class())
    found = dc.import_condensed(file, replace(real, name="cifar100"))
    assert (found.data.mean, found.data.std) == expected


def test_statistics_may_be_named_or_given(real: dc.ImageDataset, tmp_path: Path) -> None:
    file = saved_by_dc(tmp_path / "set.pt", drawn(-1, 1), by_class())
    other = replace(real, name="photos")
    with pytest.raises(dc.UsageError, match="no published constants of photos are known; give --mean and"):
        dc.import_condensed(file, other)
    named = dc.import_condensed(file, other, statistics="imagenet")
    assert (named.data.mean, named.data.std) == PUBLISHED["imagenet"]
    given = dc.import_condensed(file, other, statistics=((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
    torch.testing.assert_close(given.images, drawn(-1, 1) * 0.25 + 0.5)
    with pytest.raises(
        dc.UsageError, match="unknown dataset with published statistics 'cifar11'; did you mean"
    ):
        dc.import_condensed(file, real, statistics="cifar11")
    with pytest.raises(dc.UsageError, match="3 numbers each, one per channel"):
        dc.import_condensed(file, real, statistics=((0.5,), (0.25,)))


def test_an_imported_set_is_an_artifact_that_says_where_it_came_from(
    real: dc.ImageDataset, tmp_path: Path
) -> None:
    import hashlib

    file = saved_by_dc(tmp_path / "set.pt", drawn(-1, 1), by_class())
    found = dc.CondensedDataset.load(dc.import_condensed(file, real).save(tmp_path / "artifact"))
    settings = found.record["method"]["settings"]
    assert found.record["method"]["name"] == "imported"
    assert settings["file"] == "set.pt"
    assert settings["layout"] == "data"
    assert settings["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.record["data"]["fingerprint"] == real.fingerprint
    assert str(tmp_path) not in str(found.record)
    card = (tmp_path / "artifact" / "README.md").read_text()
    assert "set.pt" in card
    assert settings["sha256"] in card
    score = dc.evaluate(
        found, real, dc.ConvNet(width=3, depth=1), trials=1, recipe=dc.Recipe(epochs=1), progress=False
    )
    assert 0 <= score.mean <= 1


def decoded_by_idc(images: Tensor, factor: int) -> Tensor:
    """`decode_zoom` of its `condense.py`, of images whose side `factor` divides."""
    size = images.shape[-1] // factor
    parts = [
        images[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size]
        for i in range(factor)
        for j in range(factor)
    ]
    return torch.nn.functional.interpolate(torch.cat(parts), images.shape[-2:], mode="bilinear")


def test_mosaics_are_decoded_as_idc_does(real: dc.ImageDataset, tmp_path: Path) -> None:
    images = drawn(0, 1)
    file = saved_by_idc(tmp_path / "data.pt", images, by_class())
    found = dc.CondensedDataset.load(dc.import_condensed(file, real, formation=2).save(tmp_path / "artifact"))
    assert (len(found), found.ipc, len(found.training_set())) == (N, IPC, 4 * N)
    theirs = decoded_by_idc(images, 2).view(4, N, 3, 8, 8).transpose(0, 1).flatten(0, 1)  # ours goes by image
    torch.testing.assert_close(found.training_set().images, theirs)
    assert torch.equal(found.training_set().labels, by_class().repeat_interleave(4))
    with pytest.raises(dc.UsageError, match="cannot hold 9 × 9 images"):
        dc.import_condensed(file, real, formation=9)


@pytest.mark.parametrize("as_logits", [False, True])
def test_soft_labels_are_probabilities_or_logits(
    as_logits: bool, real: dc.ImageDataset, tmp_path: Path
) -> None:
    logits = 4 * torch.eye(K)[by_class()].flip(0) + torch.rand(
        N, K, generator=torch.Generator().manual_seed(4)
    )
    file = saved_by_mtt(tmp_path, drawn(-3, 3), logits if as_logits else logits.softmax(1))
    found = dc.CondensedDataset.load(dc.import_condensed(file, real).save(tmp_path / "artifact"))
    assert found.probabilities is not None
    torch.testing.assert_close(found.probabilities, logits.softmax(1))
    assert torch.equal(found.labels, by_class().flip(0))
    assert found.record["method"]["settings"]["labels"] == "soft"


def test_learned_labels_that_are_out_of_balance_go_by_position(real: dc.ImageDataset, tmp_path: Path) -> None:
    logits = torch.eye(K)[by_class()]
    logits[0] = logits[-1]
    found = dc.import_condensed(saved_by_mtt(tmp_path, drawn(-3, 3), logits), real)
    assert torch.equal(found.labels, by_class())
    logits[1, 1] = float("nan")
    with pytest.raises(dc.DatacondenseError, match="a label has NaN"):
        dc.import_condensed(saved_by_mtt(tmp_path, drawn(-3, 3), logits), real)


def photographs(n: int) -> Tensor:
    """Images with as much in fine detail as photographs have: amplitudes fall with the frequency."""
    noise = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    rows, columns = torch.fft.fftfreq(16)[:, None], torch.fft.rfftfreq(16)
    frequency = (rows**2 + columns**2).sqrt().clamp_min(1 / 16)
    images = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency**1.2)
    return (images / images.std() * 0.2 + 0.5).clamp(0, 1)


def whitened(images: Tensor, eps: float = 0.1) -> Tensor:
    """ZCA, as Kornia's `ZCAWhitening(eps=0.1)` in MTT's code computes it, of images as its training data."""
    flat = images.flatten(1).double()
    centred = flat - flat.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(flat) - 1))
    matrix = vectors @ ((values.clamp(min=0) + eps).rsqrt()[:, None] * vectors.T)
    return (centred @ matrix).view_as(images).float()


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_whitened_images_are_refused_with_the_reason(noise: float, tmp_path: Path) -> None:
    pixels = photographs(900)
    photos = replace(dc.ImageDataset.create(pixels, torch.arange(900) % K), name="cifar10")
    learned = noise * torch.randn(60, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(K).repeat_interleave(20)
    file = saved_by_mtt(tmp_path, whitened(pixels)[:60] + learned, labels)
    with pytest.raises(dc.UsageError, match=r"ZCA-whitened images \(their .*whitened by the same matrix"):
        dc.import_condensed(file, photos)
    assert len(dc.import_condensed(file, photos, not_whitened=True)) == 60
    saved_by_mtt(tmp_path, (pixels[:60] - MEAN) / STD + learned, labels)
    assert len(dc.import_condensed(file, photos)) == 60


def test_a_file_that_is_written_for_whitened_sets_tells(real: dc.ImageDataset, tmp_path: Path) -> None:
    file = saved_by_mtt(tmp_path, drawn(-3, 3), by_class())
    torch.save(drawn(0, 1), tmp_path / "images_zca_5000.pt")
    with pytest.raises(dc.UsageError, match=r"images_zca_5000.pt is written for whitened sets alone"):
        dc.import_condensed(file, real, not_whitened=True)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("pickled", [False, True])
def test_code_in_a_file_is_never_run(
    pickled: bool, real: dc.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if pickled:
        Path("set.pt").write_bytes(pickle.dumps({"data": Harmful()}, protocol=2))
    else:
        torch.save({"data": [[drawn(-1, 1), by_class()]], "accs_all_exps": Harmful()}, "set.pt")
    with pytest.raises(dc.DatacondenseError, match=r"set.pt is not read, for it would call \w+.mkdir"):
        dc.import_condensed("set.pt", real)
    assert not Path("harm").exists()


def test_of_numpy_nothing_is_called(real: dc.ImageDataset, tmp_path: Path) -> None:
    """A scalar of NumPy may hold any object; what stands in its place holds nothing."""

    class Scalar:
        def __reduce__(self) -> tuple[object, ...]:
            return np._core.multiarray.scalar, (np.dtype("f8"), b"too short")  # NumPy would raise

    torch.save(
        {"data": [[drawn(-1, 1), by_class()]], "accs_all_exps": {"ConvNet": Scalar()}}, tmp_path / "set.pt"
    )
    assert len(dc.import_condensed(tmp_path / "set.pt", real)) == N


def _unbalanced() -> Tensor:
    labels = by_class()
    labels[0] = 1
    return labels


def _with_nan() -> Tensor:
    images = drawn(0, 1)
    images[3, 1, 2, 2] = float("nan")
    return images


WRONG: dict[str, tuple[Any, str]] = {
    "no data": ({"accs": [1.0]}, "holds a dictionary with 'accs'; expected one of"),
    "no keys": ({}, "a dictionary with no keys"),
    "no sets": ({"data": []}, "no sets under 'data'"),
    "set of three": ({"data": [[drawn(0, 1)] * 3]}, "a list as the last entry of 'data', not"),
    "set of numbers": ({"data": [[1, 2]]}, "a int as images"),
    "three": ([drawn(0, 1)] * 3, "holds a list; expected one of"),
    "text": ("images", "holds a str"),
    "weights": (OrderedDict(weight=torch.ones(3)), "a dictionary with 'weight'"),
    "labels missing": ([drawn(0, 1), None], "a NoneType as labels"),
    "one tensor": (drawn(0, 1), "holds one tensor; of those, files called images"),
    "channels last": ([drawn(0, 1).permute(0, 2, 3, 1), by_class()], "images are 8×8×3, those of cifar10"),
    "flat": ([drawn(0, 1).flatten(1), by_class()], "shape 6×192; expected images × channels"),
    "integers": ([torch.ones(N, 3, 8, 8, dtype=torch.int32), by_class()], "images are torch.int32"),
    "complex": ([drawn(0, 1).to(torch.complex64), by_class()], "not a plain tensor"),
    "sparse": ([drawn(0, 1).to_sparse(), by_class()], "not a plain tensor"),
    "none": ([drawn(0, 1)[:0], by_class()[:0]], "found 0 images"),
    "vast": ([torch.zeros(1).expand(10**7, 3, 8, 8), by_class()], "found 10,000,000 images"),
    "fewer labels": ([drawn(0, 1), by_class()[1:]], "found 6 images and 5 labels"),
    "table of labels": ([drawn(0, 1), by_class()[:, None]], "labels are torch.int64 of shape"),
    "names of classes": ([drawn(0, 1), by_class() > 0], "labels are torch.bool"),
    "class beyond": ([drawn(0, 1), by_class() + 1], "labels run from 1 to 3; expected 0 to 2"),
    "class below": ([drawn(0, 1), by_class() - 1], "labels run from -1 to 1"),
    "unbalanced": ([drawn(0, 1), _unbalanced()], "found 1 of class 'row 0' and 3 of class 'row 1'"),
    "NaN": ([_with_nan(), by_class()], "image 3 has NaN or infinite values"),
    "too large for float32": ([drawn(0, 1).double() * 1e300, by_class()], "NaN or infinite"),
    "normalised": ([drawn(-3, 3), by_class()], r"expected to be pixel values in \[0, 1\]; found -3 to 3"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_one_clear_error(what: str, real: dc.ImageDataset, tmp_path: Path) -> None:
    content, message = WRONG[what]
    torch.save(content, tmp_path / "set.pt")
    with pytest.raises(dc.DatacondenseError, match=message):
        dc.import_condensed(tmp_path / "set.pt", real)


def test_damaged_and_missing_files_are_named(real: dc.ImageDataset, tmp_path: Path) -> None:
    whole = saved_by_idc(tmp_path / "whole.pt", drawn(0, 1), by_class()).read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "empty": b"", "words": b"hello, world"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(dc.DatacondenseError, match=f"{name} (is not read|cannot be read)"):
            dc.import_condensed(tmp_path / name, real)
    with pytest.raises(dc.UsageError, match="no such file or folder"):
        dc.import_condensed(tmp_path / "nothing.pt", real)
    torch.save(drawn(-1, 1), tmp_path / "images_7.pt")
    with pytest.raises(dc.UsageError, match=r"has no labels: put labels_7\.pt"):
        dc.import_condensed(tmp_path / "images_7.pt", real)


def test_folders_that_are_no_classes_are_named(real: dc.ImageDataset, tmp_path: Path) -> None:
    for name in ("cat", "dog", "eel"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    with pytest.raises(
        dc.UsageError, match=r"folders cat, dog, eel… are neither called as the classes, row 0"
    ):
        dc.import_condensed(tmp_path, real)


def test_the_command_imports_and_its_set_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save([torch.rand(20, 1, 8, 8, generator=torch.Generator()), torch.arange(20) % 10], "data.pt")
    words = ["import", "data.pt", "--data", "digits", "--out", "mine"]
    assert main(words) == 2
    assert "no published constants of digits are known" in capsys.readouterr().err
    words += ["--mean", "0.3", "--std", "0.4", "--epochs", "7", "--augmentation", "none"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "7 epochs, augmentation none" in said
    assert "next: datacondense evaluate mine" in said
    condensed = dc.CondensedDataset.load("mine")
    assert condensed.recipe == dc.Recipe(epochs=7)
    assert (condensed.data.mean, condensed.data.std) == ((0.3,), (0.4,))
    assert main(words) == 2
    assert "already holds a condensed dataset" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--learning-rate", "0"]) == 2
    assert main(["show", "mine", "--out", "mine.png"]) == 0
    assert main(["import", "data.pt", "--data", "digits", "--out", "x", "--mean", "0.3"]) == 2
