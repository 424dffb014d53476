"""Condensed sets as other tools read them: exact where promised, explained, never over another's file."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import datacondense as dc
from conftest import toy_dataset
from datacondense.artifact.exporting import class_folders, rounded
from datacondense.cli import main
from datacondense.files import MANIFEST
from datacondense.training import Recipe

#: Nothing of it is measured.
MACHINE = dc.Machine(torch.device("cpu"), "float32", micro_batch=None)


def condensed_toy(channels: int = 3, **changes: Any) -> dc.CondensedDataset:
    """Two images of each of three classes, in an order of their own, some values outside [0, 1]."""
    made = dc.condense(toy_dataset(channels=channels), 2, dc.RandomSelection(), machine=MACHINE)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    images = made.images[order] + torch.linspace(-0.4, 0.4, 6).view(-1, 1, 1, 1)
    return replace(made, data=replace(made.data, images=images, labels=made.labels[order], **changes))


def cifar10() -> dc.CondensedDataset:
    """A condensed set that DD-Ranking has a name for."""
    made = condensed_toy()
    images = torch.nn.functional.interpolate(made.images, (32, 32))
    return replace(made, data=replace(made.data, images=images, name="cifar10"))


def read_by_its_readme(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the Python in the README makes."""
    monkeypatch.chdir(folder)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize("layout", ["npz", "pt", "parquet"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_readme_reads_exact_values(
    layout: Any, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    condensed = condensed_toy(channels)
    found = read_by_its_readme(dc.export_condensed(condensed, tmp_path / "out", layout), monkeypatch)
    images, labels = condensed.to_torch().tensors
    torch.testing.assert_close(found["images"], images)
    assert torch.equal(found["targets"], labels)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_readme_reads_rounded_pictures_in_the_order_of_the_classes(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    condensed = condensed_toy(channels, class_names=("T-shirt/top", "Bag", "..."))
    found = read_by_its_readme(dc.export_condensed(condensed, tmp_path / "out", "folder"), monkeypatch)
    order = torch.argsort(condensed.labels, stable=True)
    torch.testing.assert_close(found["images"], rounded(condensed).data.normalised(order))
    assert torch.equal(found["targets"], condensed.labels[order])
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        "0_T-shirt-top", "1_Bag", "2_"
    ]  # fmt: skip


def test_rounding_is_what_png_files_do(tmp_path: Path) -> None:
    condensed = condensed_toy()
    dc.export_condensed(condensed, tmp_path / "out", "folder")
    first = int((condensed.labels == 0).nonzero()[0])
    with Image.open(tmp_path / "out" / "row 0" / "00000.png") as picture:
        pixels = torch.tensor(np.array(picture)).permute(2, 0, 1)
    assert torch.equal(pixels / 255, rounded(condensed).images[first])
    assert (rounded(condensed).images - condensed.images.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


@given(st.lists(st.text(max_size=12), min_size=2, max_size=12, unique=True))
def test_folders_of_classes_are_distinct_sorted_and_can_be_made(names: list[str]) -> None:
    folders = class_folders(tuple(names))
    assert folders == sorted(set(folders))
    assert len(folders) == len(names)
    assert all(
        folder not in ("", ".", "..") and not set(folder) & {"/", "\\", "\0", "\n"} for folder in folders
    )


def test_tensors_open_without_code_and_hold_nothing_else(tmp_path: Path) -> None:
    folder = dc.export_condensed(condensed_toy(), tmp_path / "out", "pt")
    saved = torch.load(folder / "condensed.pt", weights_only=True)
    assert {name: tensor.dtype for name, tensor in saved.items()} == {
        "images": torch.float32, "labels": torch.int64, "mean": torch.float32, "std": torch.float32
    }  # fmt: skip
    arrays = np.load(dc.export_condensed(condensed_toy(), tmp_path / "npz", "npz") / "condensed.npz")
    assert arrays["class_names"].tolist() == ["row 0", "row 1", "row 2"]  # without allow_pickle


def test_dd_ranking_gets_its_constants_its_order_and_the_learning_rate(tmp_path: Path) -> None:
    condensed = replace(cifar10(), recipe=Recipe(learning_rate=0.02))
    folder = dc.export_condensed(condensed, tmp_path / "out", "ddranking")
    images, labels, rate = (
        torch.load(folder / f"{name}.pt", weights_only=True) for name in ("images", "labels", "lr")
    )
    order = [int(i) for c in range(3) for i in (condensed.labels == c).nonzero()]
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    std = torch.tensor([0.2023, 0.1994, 0.2010]).view(3, 1, 1)
    torch.testing.assert_close(images, (condensed.images[order] - mean) / std)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert rate.item() == pytest.approx(0.02)


def mosaics() -> dc.CondensedDataset:
    """Stored images of 2 × 2 parts each, with class probabilities."""
    made = condensed_toy()
    soft = torch.rand(6, 3, generator=torch.Generator().manual_seed(5)).softmax(1)
    record = made.record | {"decoder": {"name": "multi-formation", "factor": 2}}
    return replace(made, data=replace(made.data, probabilities=soft), record=record)


@pytest.mark.parametrize("layout", ["npz", "pt", "parquet"])
def test_what_is_trained_on_is_exported(layout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = read_by_its_readme(dc.export_condensed(mosaics(), tmp_path / "out", layout), monkeypatch)
    images, targets = mosaics().to_torch().tensors
    assert images.shape == (24, 3, 8, 8)
    torch.testing.assert_close(found["images"], images)
    torch.testing.assert_close(found["targets"], targets)


def test_dd_ranking_gets_logits_of_class_probabilities(tmp_path: Path) -> None:
    condensed = cifar10()
    soft = torch.eye(3)[condensed.labels] * 0.9 + 0.1 / 3
    soft[0] = torch.eye(3)[condensed.labels[0]]  # the others are impossible
    condensed = replace(condensed, data=replace(condensed.data, probabilities=soft))
    folder = dc.export_condensed(condensed, tmp_path / "out", "ddranking")
    logits = torch.load(folder / "labels.pt", weights_only=True)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.softmax(1), soft[torch.argsort(condensed.labels, stable=True)])
    assert "LabelRobustScoreSoft" in (folder / "README.md").read_text()


def test_pictures_of_mosaics_are_decoded_and_keep_no_probabilities(tmp_path: Path) -> None:
    with pytest.raises(dc.UsageError, match="PNG files have no class probabilities"):
        dc.export_condensed(mosaics(), tmp_path / "out", "folder")
    hard = replace(mosaics(), data=replace(mosaics().data, probabilities=None))
    folder = dc.export_condensed(hard, tmp_path / "out", "folder")
    assert len(list(folder.glob("row 1/*.png"))) == 8
    assert len(rounded(hard).training_set()) == 24
    assert rounded(hard).ipc == 8


def test_dd_ranking_is_refused_what_it_cannot_evaluate(tmp_path: Path) -> None:
    with pytest.raises(dc.UsageError, match=r"DD-Ranking evaluates CIFAR10, .*; found toy"):
        dc.export_condensed(condensed_toy(), tmp_path / "out", "ddranking")
    small = condensed_toy(name="cifar10")
    with pytest.raises(dc.UsageError, match=r"CIFAR10 at 3×32×32; found 3×8×8"):
        dc.export_condensed(small, tmp_path / "out", "ddranking")
    with pytest.raises(dc.UsageError, match="PNG files have 1 or 3 channels; found 2"):
        dc.export_condensed(condensed_toy(2), tmp_path / "out", "folder")
    with pytest.raises(dc.UsageError, match="unknown export format 'png'"):
        dc.export_condensed(condensed_toy(), tmp_path / "out", "png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["folder", "ddranking"])
def test_what_is_exported_can_be_imported(layout: Any, tmp_path: Path) -> None:
    condensed = cifar10()
    real = toy_dataset(channels=3)
    real = replace(real, images=torch.nn.functional.interpolate(real.images, (32, 32)), name="cifar10")
    folder = dc.export_condensed(condensed, tmp_path / "out", layout)
    for extra in (MANIFEST, "README.md"):  # also of those who deleted them
        (folder / extra).unlink()
    found = dc.import_condensed(
        folder if layout == "folder" else folder / "images.pt", real, not_whitened=True
    )
    order = torch.argsort(condensed.labels, stable=True)
    assert torch.equal(found.labels, condensed.labels[order])
    expected = rounded(condensed).images if layout == "folder" else condensed.images
    torch.testing.assert_close(found.images, expected[order])


def test_only_what_export_wrote_is_replaced(tmp_path: Path) -> None:
    out, condensed = tmp_path / "out", condensed_toy()
    dc.export_condensed(condensed, out, "folder")
    with pytest.raises(dc.UsageError, match="has files already"):
        dc.export_condensed(condensed, out, "npz")
    dc.export_condensed(condensed, out, "npz", overwrite=True)
    assert sorted(os.listdir(out)) == ["README.md", "condensed.npz", MANIFEST]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(dc.UsageError, match=r"notes.txt is not as datacondense wrote it"):
        dc.export_condensed(condensed, out, "pt", overwrite=True)
    (out / "notes.txt").unlink()
    (out / "README.md").write_text("my remarks")
    with pytest.raises(dc.UsageError, match=r"README.md is not as datacondense wrote it"):
        dc.export_condensed(condensed, out, "pt", overwrite=True)
    assert sorted(os.listdir(out)) == ["README.md", "condensed.npz", MANIFEST]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("manifest", ["", "{}", "[]", '{"versions": {"datacondense": "1"}, "files": [1]}'])
def test_a_manifest_that_is_none_proves_nothing(manifest: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(manifest)
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(dc.UsageError, match="is not as datacondense wrote it"):
        dc.export_condensed(condensed_toy(), tmp_path, "pt", overwrite=True)
    assert (tmp_path / "photo.png").read_bytes() == b"mine"


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, condensed = tmp_path / "out", condensed_toy()
    dc.export_condensed(condensed, out, "npz")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    rename, full = os.rename, []

    def failing(source: Any, target: Any) -> None:
        if Path(target) == out and not full:
            full.append(target)
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(dc.DatacondenseError, match="No space left on device"):
        dc.export_condensed(condensed, out, "pt", overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.slow
def test_the_command_checks_what_rounding_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["condense", "digits", "--ipc", "1", "--method", "random", "--out", "mine", "--quiet"])
    words = ["export", "mine", "--to", "folder", "--out", "out", "--check", "--trials", "2", "--epochs", "1"]
    assert main([*words, "--networks", "convnet(width=3,depth=1)", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"exact .* % \(n = 2\), rounded to 8 bits .* % \(n = 2\): [+-]0\.\d points", said)
    checked = json.loads(Path("out", MANIFEST).read_text())["check"]
    (scores,) = checked.values()
    # Digits are 8-bit images, so selected ones lose nothing, and the trials are the same.
    assert scores["exact"]["accuracies"] == scores["rounded"]["accuracies"]
    assert len(scores["exact"]["accuracies"]) == 2
    assert main(["export", "mine", "--to", "npz", "--out", "other", "--check"]) == 2
    assert "keeps exact values" in capsys.readouterr().err
    assert not Path("other").exists()
