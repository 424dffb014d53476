"""The artifact: what it keeps, who can read it, and how damage is reported."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.utils.data import DataLoader

from conftest import toy_dataset
from datacondense import (
    CondensedDataset,
    ConvNet,
    DatacondenseError,
    ImageDataset,
    Recipe,
    UsageError,
    condense,
)
from datacondense import GradientMatching as Matching
from datacondense.artifact.condensed import CARD, CHECKPOINT, METRICS, PARQUET, PICTURE, RESULT, TENSORS
from datacondense.artifact.picture import picture, to_pil
from datacondense.machine import Machine
from datacondense.reading import pack_tensors, read_tensors

pytestmark = pytest.mark.usefixtures("untouched_random_state")


@pytest.fixture(scope="module")
def condensed() -> CondensedDataset:
    machine = Machine(torch.device("cpu"), "float32", micro_batch=None)
    method = Matching(iterations=1)
    return condense(toy_dataset(channels=3), 1, method, ConvNet(width=3, depth=1), machine=machine)


def test_the_round_trip_is_exact(condensed: CondensedDataset, tmp_path: Path) -> None:
    loaded = CondensedDataset.load(condensed.save(tmp_path / "new" / "artifact"))
    assert torch.equal(loaded.images, condensed.images)
    assert torch.equal(loaded.labels, condensed.labels)
    assert loaded.recipe == condensed.recipe
    assert loaded.record == condensed.record
    assert (loaded.data.mean, loaded.data.std) == (condensed.data.mean, condensed.data.std)
    assert repr(loaded) == "CondensedDataset('toy', 3 classes × 1 by gradient-matching)"


def test_the_record_says_everything_that_determined_the_images(condensed: CondensedDataset) -> None:
    record = condensed.record
    assert record["method"]["name"] == "gradient-matching"
    assert record["method"]["settings"]["image_learning_rate"] is None
    assert record["network"] == "convnet(width=3,depth=1)"
    assert record["data"]["fingerprint"] == toy_dataset(channels=3).fingerprint
    assert {"seed", "ipc", "precision", "versions", "schema", "class_names"} <= record.keys()


def test_datasets_reads_the_folder_with_exact_pixels(condensed: CondensedDataset, tmp_path: Path) -> None:
    import datasets

    folder = condensed.save(tmp_path / "artifact")
    (folder / "metrics.jsonl").write_text("{}\n")  # what else condense writes must not disturb
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features["label"].names == ["row 0", "row 1", "row 2"]
    assert rows["label"] == condensed.labels.tolist()
    assert np.array_equal(np.array(rows.with_format("numpy")["pixels"]), condensed.images.numpy())
    assert np.array_equal(np.array(rows[0]["image"]), np.array(to_pil(condensed.images[0])))


def test_to_torch_is_ready_for_a_dataloader(condensed: CondensedDataset) -> None:
    dataset = condensed.to_torch()
    images, labels = next(iter(DataLoader(dataset, batch_size=3, generator=torch.Generator())))
    assert images.dtype == torch.float32
    assert labels.tolist() == [0, 1, 2]
    mean = torch.tensor(condensed.data.mean).view(3, 1, 1)
    std = torch.tensor(condensed.data.std).view(3, 1, 1)
    assert torch.allclose(images * std + mean, condensed.images, atol=1e-5)


def test_the_card_has_the_recipe_and_the_picture(condensed: CondensedDataset, tmp_path: Path) -> None:
    folder = condensed.save(tmp_path / "artifact")
    card = (folder / "README.md").read_text()
    assert "| epochs | 300 |" in card
    assert "`convnet(width=3,depth=1)`" in card
    assert "](condensed.png)" in card
    assert "| outer steps | 1 |" in card
    assert "| image learning rate | 0.1 |" in card
    assert "null" not in card
    assert "`datacondense evaluate FOLDER --trials 20`" in card
    with Image.open(folder / "condensed.png") as drawn:
        assert drawn.tobytes() == picture(condensed.data).tobytes()


def test_pictures_have_a_row_per_class_and_true_colours() -> None:
    toy = toy_dataset(n=7, channels=3)
    toy.images[0] = torch.tensor([255, 0, 128], dtype=torch.uint8).view(3, 1, 1)
    drawn = picture(toy, columns=2)
    colours = np.array(drawn.convert("RGB")).reshape(-1, 3)
    assert (colours == [255, 0, 128]).all(1).sum() == 64 * 64  # 8×8 magnified eightfold
    rows, columns = 3, 2
    assert drawn.height == rows * 68 + 4
    assert drawn.width > columns * 68
    assert to_pil(torch.tensor([[[-3.0, 0.5], [1.0, 9.0]]])).tobytes() == bytes([0, 128, 255, 255])


def test_the_card_names_the_depth_that_took_effect_and_imports_nothing(tmp_path: Path) -> None:
    machine = Machine(torch.device("cpu"), "float32", micro_batch=None)
    chosen = condense(toy_dataset(), 1, "random", machine=machine)
    assert chosen.record["network"] == "convnet"
    assert "`convnet(depth=1)`" in (chosen.save(tmp_path / "ours") / "README.md").read_text()
    chosen.record["network"] = "not_to_be_imported:net"
    assert "`not_to_be_imported:net`" in (chosen.save(tmp_path / "theirs") / "README.md").read_text()


def with_names(names: list[str], each: int) -> ImageDataset:
    images = torch.zeros(each * len(names), 1, 8, 8, dtype=torch.uint8)
    return ImageDataset.create(images, torch.arange(len(images)) % len(names), names)


def test_one_image_per_class_is_laid_out_wide_and_scaled() -> None:
    drawn = picture(with_names([str(c) for c in range(20)], 1))
    assert (drawn.width, drawn.height) == (10 * 68 + 4, 2 * (64 + 20 + 4) + 4)
    assert picture(with_names(["a", "b"], 1), scale=2).height == 16 + 20 + 2 * 4
    assert picture(with_names(["a", "b"], 3), scale=10).height == 2 * 84 + 4
    for settings in ({"scale": 0}, {"columns": 0}, {"scale": 1000}):
        with pytest.raises(UsageError, match=r"at least 1|megapixels"):
            picture(with_names(["a", "b"], 2), **settings)


def ink(name: str) -> list[tuple[int, int]]:
    """Where the caption of a class of this name is drawn."""
    drawn = np.array(picture(with_names([name, "another long name"], 1)).convert("L"))
    return [tuple(place) for place in np.argwhere(drawn[68:, : drawn.shape[1] // 2] < 128)]


def test_names_of_other_scripts_are_no_boxes() -> None:
    captions = [ink(name) for name in ("ä", "ж", "γ", "ö", "ש", "ع")]
    assert all(captions)
    assert all(one != other for one, other in itertools.combinations(captions, 2))
    assert ink("\U00013000") == ink("class 0"), "what no font has is numbered"


def test_a_long_name_is_shortened_in_pictures() -> None:
    for each in (1, 2):
        drawn = picture(with_names(["x" * 200_000, "b"], each))
        assert drawn.width < 500


def test_what_users_ask_of_a_condensed_set(condensed: CondensedDataset) -> None:
    assert condensed.class_names == ("row 0", "row 1", "row 2")
    assert torch.equal(condensed.normalise(condensed.images), condensed.to_torch().tensors[0])
    real = toy_dataset(channels=3)
    assert torch.allclose(condensed.normalise(real.images), real.normalised())


def tampered(folder: Path, change, *, hashed: bool = True) -> None:
    """Rewrite the artifact's record and tensors by `change(record, tensors)`, with a checksum that is right,
    or as before there was one."""
    path = folder / TENSORS
    record, tensors = read_tensors(path, "record", dict[str, Any])
    change(record, tensors)
    path.write_bytes(
        pack_tensors(tensors, "record", record)
        if hashed
        else safetensors.torch.save(tensors, metadata={"record": json.dumps(record)})
    )


def set_to(**values):
    """A change of entries of the record; `a__b` is entry b of entry a."""

    def change(record, tensors):
        for name, value in values.items():
            *path, last = name.split("__")
            place = record
            for part in path:
                place = place[part]
            place[last] = value

    return change


INCONSISTENT = {
    "no recipe": lambda record, tensors: record.pop("recipe"),
    "no mean": lambda record, tensors: record.pop("mean"),
    "no method": lambda record, tensors: record.pop("method"),
    "no seed": lambda record, tensors: record.pop("seed"),
    "no epochs": lambda record, tensors: record["recipe"].pop("epochs"),
    "no labels": lambda record, tensors: tensors.pop("labels"),
    "another ipc": set_to(ipc=2),
    "no ipc": set_to(ipc=0),
    "a class too few": lambda record, tensors: record["class_names"].pop(),
    "class names are numbers": set_to(class_names=[0, 1, 2]),
    "a class name twice": set_to(class_names=["a", "b", "a"]),
    "an endless class name": set_to(class_names=["a", "b", "c" * 200_000]),
    "a wrong mean": set_to(mean=["0", "0", "0"]),
    "a channel too few": set_to(mean=[0.5], std=[0.5]),
    "std 0": set_to(std=[0.5, 0.5, 0.0]),
    "std -1": set_to(std=[0.5, 0.5, -1.0]),
    "std tiny": set_to(std=[0.5, 0.5, 1e-300]),
    "recipe is a list": set_to(recipe=[]),
    "epochs is a word": set_to(recipe__epochs="300"),
    "epochs is a list": set_to(recipe__epochs=[300]),
    "epochs -1": set_to(recipe__epochs=-1),
    "unknown augmentation": set_to(recipe__augmentation="magic"),
    "step sizes are words": set_to(recipe__step_sizes=["0.1"]),
    "schema is a word": set_to(schema="1"),
    "terminal codes": set_to(method__name="\x1b[2J"),
    "wrong indices": set_to(indices=[1]),
    "labels too large": lambda record, tensors: tensors.update(labels=tensors["labels"] + 1),
    "labels negative": lambda record, tensors: tensors.update(labels=tensors["labels"] - 1),
    "labels 2-D": lambda record, tensors: tensors.update(labels=tensors["labels"][None]),
    "labels not balanced": lambda record, tensors: tensors.update(labels=tensors["labels"] * 0),
    "labels float": lambda record, tensors: tensors.update(labels=tensors["labels"].float()),
    "no labels at all": lambda record, tensors: tensors.update(labels=tensors["labels"][:0]),
    "images 1-D": lambda record, tensors: tensors.update(images=torch.ones(3)),
    "images of one channel": lambda record, tensors: tensors.update(images=tensors["images"][:, :1]),
    "images float64": lambda record, tensors: tensors.update(images=tensors["images"].double()),
    "images NaN": lambda record, tensors: tensors["images"][0, 0, 0].fill_(torch.nan),
    "images infinite": lambda record, tensors: tensors["images"][0, 0, 0].fill_(torch.inf),
}


@pytest.mark.parametrize("change", INCONSISTENT.values(), ids=INCONSISTENT)
def test_inconsistent_artifacts_are_damaged(condensed: CondensedDataset, tmp_path: Path, change) -> None:
    folder = condensed.save(tmp_path / "artifact")
    tampered(folder, change)
    with pytest.raises(DatacondenseError, match=r"condensed\.safetensors is damaged .*; condense again or"):
        CondensedDataset.load(folder)


def test_a_record_that_is_nested_too_deeply_is_damaged(condensed: CondensedDataset, tmp_path: Path) -> None:
    path = condensed.save(tmp_path / "artifact") / TENSORS
    deep = '{"schema": 1, "x": ' + "[" * 100_000
    path.write_bytes(safetensors.torch.save({"images": torch.ones(1)}, metadata={"record": deep}))
    with pytest.raises(DatacondenseError, match=r"is damaged \(it is nested too deeply\)"):
        CondensedDataset.load(path.parent)


def test_artifacts_from_before_there_was_a_checksum_load(condensed: CondensedDataset, tmp_path: Path) -> None:
    folder = condensed.save(tmp_path / "artifact")

    def as_before(record, tensors):
        del record["recipe"]["step_sizes"], record["compiled"], record["data"]["jpeg"]
        del record["data"]["source"], record["method"]["reference"]

    tampered(folder, as_before, hashed=False)
    loaded = CondensedDataset.load(folder)
    assert torch.equal(loaded.images, condensed.images)
    assert loaded.recipe == condensed.recipe
    loaded.save(tmp_path / "again")


def test_truncated_artifacts_are_damaged(condensed: CondensedDataset, tmp_path: Path) -> None:
    path = condensed.save(tmp_path / "artifact") / TENSORS
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DatacondenseError, match="is damaged"):
            CondensedDataset.load(path.parent)


def test_newer_schemas_are_refused(condensed: CondensedDataset, tmp_path: Path) -> None:
    folder = condensed.save(tmp_path / "artifact")
    tampered(folder, lambda record, tensors: record.update(schema=99))
    with pytest.raises(DatacondenseError, match="schema 99, newer than"):
        CondensedDataset.load(folder)


def test_what_is_no_artifact_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        CondensedDataset.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"it has no condensed\.safetensors"):
        CondensedDataset.load(tmp_path)


def test_saving_over_an_artifact_needs_leave(condensed: CondensedDataset, tmp_path: Path) -> None:
    condensed.save(tmp_path)
    (tmp_path / METRICS).write_text('{"datacondense": "random"}\n')  # of a run that made another one
    with pytest.raises(UsageError, match="already holds a condensed dataset"):
        condensed.save(tmp_path)
    condensed.save(tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CARD, PICTURE, TENSORS, "data"])


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", [CARD, PICTURE, PARQUET, TENSORS, RESULT, METRICS, CHECKPOINT])
def test_saving_never_touches_files_of_others(
    condensed: CondensedDataset, name: str, overwrite: bool, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"theirs": 1}\n')
    with pytest.raises(UsageError, match=f"{re.escape(name)} exists, and nothing in it proves") as refused:
        condensed.save(tmp_path, overwrite=overwrite)
    assert "--overwrite" not in str(refused.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [path]
    assert path.read_text() == '{"theirs": 1}\n'


def test_recipes_survive(condensed: CondensedDataset, tmp_path: Path) -> None:
    recipe = Recipe(epochs=7, augmentation="crop-noise", weight_decay=0.0)
    other = CondensedDataset(condensed.data, recipe, condensed.record)
    assert CondensedDataset.load(other.save(tmp_path / "a")).recipe == recipe
