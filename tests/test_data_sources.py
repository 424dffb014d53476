"""load_dataset: names, folders, parquet, the Hub offline, and every kind of bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datacondense.data import ImageDataset, known_datasets, load_dataset
from datacondense.errors import DatacondenseError, UsageError
from pictures import NAMES, fill, picture, rows, table, write

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_data_directory(monkeypatch):
    monkeypatch.delenv("DATACONDENSE_DATA", raising=False)


# Names


def test_digits_are_split_once_for_everybody():
    splits, again = load_dataset("digits"), load_dataset("digits", seed=7)
    assert (len(splits.train), len(splits.test), splits.train.image_shape) == (1438, 359, (1, 8, 8))
    assert splits.train.fingerprint == again.train.fingerprint
    assert splits.test.fingerprint == again.test.fingerprint
    assert splits.train.images.max() == 255
    assert splits.test.mean == splits.train.mean
    assert all(34 <= len(members) <= 37 for members in splits.test.indices_by_class)
    assert splits.notes == ()


@pytest.mark.parametrize(("name", "meant"), [("mnits", "mnist"), ("Digits", "digits"), ("petz", "pets")])
def test_a_misspelt_name_gets_a_suggestion(name, meant, tmp_path, monkeypatch):
    fill(tmp_path / "pets")
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=f"unknown dataset '{name}'; did you mean '{meant}'"):
        load_dataset(name)


@pytest.mark.parametrize("name", ["", "x" * 5000, "./" + "x" * 5000, "~nobody/pets", "no\0name", "pets\n"])
def test_names_that_nothing_has(name):
    with pytest.raises(UsageError, match=r"unknown dataset|no such folder"):
        load_dataset(name)


def test_names_are_read_from_the_data_directory(tmp_path, monkeypatch):
    write(tmp_path / "mnist" / "train.parquet")
    write(tmp_path / "mnist" / "test.parquet", rows(4))
    write(tmp_path / "single.parquet")
    fill(tmp_path / "pets")
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path))
    splits = load_dataset("mnist")
    assert (splits.train.name, len(splits.train), len(splits.test)) == ("mnist", 6, 4)
    assert load_dataset("pets").train.class_names == NAMES
    assert len(load_dataset("single").train) == 4
    assert {"digits", "cifar100", "pets", "single"} <= set(known_datasets())
    assert str(tmp_path) in known_datasets()["mnist"]


def test_a_data_directory_that_does_not_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"DATACONDENSE_DATA names .*nowhere"):
        load_dataset("mnist")


@pytest.mark.parametrize(
    ("name", "hub_id"), [("nobody/nothing", "nobody/nothing"), ("mnist", "ylecun/mnist")]
)
def test_the_hub_offline_is_one_clear_error(name, hub_id, tmp_path, monkeypatch):
    import datasets
    import huggingface_hub

    for module in (datasets.config, huggingface_hub.constants):  # what HF_HUB_OFFLINE=1 sets on import
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        DatacondenseError, match=f"^{hub_id}: cannot be read from the Hugging Face Hub"
    ) as caught:
        load_dataset(name)
    assert "DATACONDENSE_DATA" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "called", "asked"),
    [
        ("cifar10", "cifar10", ("uoft-cs/cifar10", None, "0b2714987fa478483af9968de7c934580d0bb9a2")),
        ("svhn", "svhn", ("ufldl-stanford/svhn", "cropped_digits", None)),
        ("ylecun/mnist", "mnist", ("ylecun/mnist", None, None)),
        ("some/pets:small", "some/pets:small", ("some/pets", "small", None)),
    ],
)
def test_what_is_asked_of_the_hub(name, called, asked, monkeypatch):
    import datasets

    requests = []

    def answer(path, config, *, revision):
        requests.append((path, config, revision))
        return datasets.DatasetDict(train=table(rows(6)), test=table(rows(4)), extra=table(rows(2)))

    monkeypatch.setattr(datasets, "load_dataset", answer)
    splits = load_dataset(name)
    assert requests == [asked]
    assert (splits.train.name, len(splits.train), len(splits.test)) == (called, 6, 4)


def test_a_folder_here_is_found_by_its_bare_name(tmp_path, monkeypatch):
    fill(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    assert load_dataset("pets").train.name == "pets"
    assert load_dataset("./pets").train.class_names == NAMES


@pytest.mark.parametrize("source", ["digits", "folder", "splits", "parquet", "arrays", "image dataset"])
def test_test_images_are_normalised_by_the_training_images(source, tmp_path):
    """A test split that is brighter must stay brighter: with its own mean it would not."""
    if source == "splits":
        fill(tmp_path / "train")
        fill(tmp_path / "test", each=2)
    elif source == "folder":
        fill(tmp_path)
    elif source == "parquet":
        write(tmp_path / "train.parquet")
        write(tmp_path / "test.parquet", rows(4, first=70))
    dark, labels = torch.randint(0, 99, (8, 1, 5, 5)).byte(), torch.arange(8) % 2
    test = (dark + 150, labels)
    in_memory = {"arrays": (dark, labels), "image dataset": ImageDataset.create(dark, labels)}
    splits = (
        load_dataset(in_memory[source], test=test) if source in in_memory
        else load_dataset("digits" if source == "digits" else tmp_path)
    )  # fmt: skip
    assert splits.test.images.float().mean() != splits.train.images.float().mean()
    assert torch.equal(splits.test.normalised(), splits.train.normalise(splits.test.images))


# Parquet


@pytest.mark.parametrize(
    "files",
    [
        {"train.parquet": 6, "test.parquet": 4},
        {
            "train-00000-of-00002.parquet": 2,
            "train-00001-of-00002.parquet": 4,
            "test-00000-of-00001.parquet": 4,
        },
        {"data/train-00000-of-00001.parquet": 6, "data/test-00000-of-00001.parquet": 4},
        {"train.parquet": 6, "validation.parquet": 4},
    ],
)
def test_parquet_layouts(files, tmp_path):
    for name, n in files.items():
        write(tmp_path / name, rows(n))
    before = sorted(tmp_path.rglob("*"))
    splits = load_dataset(tmp_path)
    assert (len(splits.train), len(splits.test)) == (6, 4)
    assert splits.train.class_names == splits.test.class_names == NAMES
    assert splits.test.mean == splits.train.mean
    assert torch.equal(splits.test.images[3, 0], torch.from_numpy(np.array(picture(3))))
    assert len(splits.notes) == ("validation.parquet" in files)
    assert sorted(tmp_path.rglob("*")) == before


def test_parquet_without_a_test_split(tmp_path):
    write(tmp_path / "pictures.parquet", rows(10))
    splits = load_dataset(str(tmp_path))
    assert (len(splits.train), len(splits.test)) == (8, 2)
    assert "no test split found: 2 of 10 images" in splits.notes[0]


def test_a_parquet_file_that_changed_is_read_anew(tmp_path):
    write(tmp_path / "train.parquet", rows(6))
    first = load_dataset(tmp_path)
    write(tmp_path / "train.parquet", rows(6, first=50))
    assert load_dataset(tmp_path).train.fingerprint != first.train.fingerprint


def test_columns_are_recognised_by_type_or_named(tmp_path):
    columns = {"id": [*range(6)], "split_of": ["a"] * 6, **rows(), "coarse": [1, 0] * 3}
    write(tmp_path / "train.parquet", columns)
    assert load_dataset(tmp_path).train.class_names == NAMES
    assert load_dataset(tmp_path, label_column="coarse").train.class_names == ("0", "1")
    with pytest.raises(UsageError, match=r"has no column 'colour'.*image \(Image\), label \(ClassLabel\)"):
        load_dataset(tmp_path, label_column="colour")


def test_an_ambiguous_label_column_has_to_be_named(tmp_path):
    columns = {"image": rows()["image"], "fine": [0, 1] * 3, "coarse": [1, 0] * 3}
    write(tmp_path / "train.parquet", columns)
    with pytest.raises(
        UsageError, match=r"several columns could be the label.*fine \(int64\), coarse \(int64\)"
    ):
        load_dataset(tmp_path)


def test_the_usual_label_column_of_a_known_dataset(tmp_path, monkeypatch):
    write(tmp_path / "cifar100" / "train.parquet", {"image": rows()["image"], "fine_label": [0, 1] * 3,
                                                    "coarse_label": [1, 0] * 3})  # fmt: skip
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path))
    assert load_dataset("cifar100").train.classes == 2


def test_parquet_without_images(tmp_path):
    write(tmp_path / "train.parquet", {"text": ["a", "b"], "label": [0, 1]})
    with pytest.raises(UsageError, match=r"no image.*text \(string\)"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [(b"no image", "row 1: cannot be read as an image"), (None, "row 1: found nothing in column 'image'")],
)
def test_a_damaged_row_is_named(encoded, message, tmp_path):
    import pyarrow
    import pyarrow.parquet

    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    picture(0).save(tmp_path / "good.png")
    images = [{"bytes": data} for data in ((tmp_path / "good.png").read_bytes(), encoded)]
    damaged = pyarrow.table({"image": pyarrow.array(images, kind), "label": [0, 1]})
    pyarrow.parquet.write_table(damaged, tmp_path / "train.parquet")
    with pytest.raises(DatacondenseError, match=f"split 'train', {message}"):
        load_dataset(tmp_path)


def test_parquet_that_is_none_or_incomplete(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(DatacondenseError, match=r"train\.parquet: cannot be read as parquet"):
        load_dataset(tmp_path)
    (tmp_path / "train.parquet").unlink()
    write(tmp_path / "train-00000-of-00003.parquet")
    with pytest.raises(DatacondenseError, match="1 of the 3 parts"):
        load_dataset(tmp_path)
    write(tmp_path / "test-only" / "test.parquet")
    with pytest.raises(UsageError, match="expected one called 'train'"):
        load_dataset(tmp_path / "test-only")


def test_hugging_face_datasets_in_memory():
    data = table(rows(10))
    splits = load_dataset(data.select([9, 8, 7, 6]), test=data)
    assert (len(splits.train), len(splits.test)) == (4, 10)
    assert torch.equal(splits.train.images[0, 0], torch.from_numpy(np.array(picture(9))))


# Folders of images


@pytest.mark.parametrize("test_name", ["test", "val", "validation"])
@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("RGB", "BMP"), ("RGB", "webp")])
def test_folders_by_class(test_name, mode, suffix, tmp_path):
    fill(tmp_path / "train", mode=mode, suffix=suffix)
    fill(tmp_path / test_name, each=2, mode=mode, suffix=suffix)
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "cat" / "._0.png").write_text("rubbish of another system")
    (tmp_path / "train" / "notes.txt").write_text("not an image")
    splits = load_dataset(tmp_path)
    assert splits.train.labels.tolist() == [0] * 5 + [1] * 5
    assert splits.train.class_names == NAMES
    assert splits.train.image_shape[0] == len(mode) // 3 * 2 + 1
    assert len(splits.test) == 4
    assert len(splits.notes) == (test_name != "test")


def test_a_test_split_is_made_from_the_seed_by_class(tmp_path):
    fill(tmp_path, each=10)
    splits, same, other = (load_dataset(tmp_path, seed=seed) for seed in (0, 0, 1))
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    assert len(splits.train) == 16
    assert splits.test.fingerprint == same.test.fingerprint != other.test.fingerprint
    assert "20 % of each class, drawn with seed 0" in splits.notes[0]


def test_a_class_with_one_image_stays_in_training(tmp_path):
    fill(tmp_path, each=2)
    (tmp_path / "owl").mkdir()
    picture(0).save(tmp_path / "owl" / "only.png")
    splits = load_dataset(tmp_path)
    assert sorted(splits.train.labels.tolist()) == [0, 1, 2]
    assert splits.test.labels.tolist() == [0, 1]


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path)
    (tmp_path / "dog").rename(tmp_path / "train")
    assert load_dataset(tmp_path).train.class_names == ("cat", "train")


def test_colour_anywhere_makes_all_images_colour(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    picture(7, mode="RGB").save(tmp_path / "test" / "cat" / "0.png")
    splits = load_dataset(tmp_path)
    assert splits.train.image_shape == splits.test.image_shape == (3, 8, 8)
    assert torch.equal(splits.train.images[:, 0], splits.train.images[:, 2])


def test_images_of_different_sizes_are_named_and_can_be_resized(tmp_path):
    fill(tmp_path)
    picture(1, size=(6, 9)).save(tmp_path / "dog" / "odd.png")
    with pytest.raises(DatacondenseError, match=r"cat/0\.png is 8×8, .*odd\.png is 6×9 .*--resize 8x8"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, resize=4).train.image_shape == (1, 4, 4)
    assert load_dataset(tmp_path, resize="5x7").test.image_shape == (1, 5, 7)


def test_test_images_of_another_size(tmp_path):
    fill(tmp_path / "train")
    for name in NAMES:
        (tmp_path / "test" / name).mkdir(parents=True)
        picture(1, size=(9, 9)).save(tmp_path / "test" / name / "0.png")
    with pytest.raises(DatacondenseError, match=r"train is 8×8, .*test is 9×9 .*--resize"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, resize=(8, 8)).test.image_shape == (1, 8, 8)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_file_that_is_no_image_is_named(content, tmp_path):
    fill(tmp_path)
    whole = (tmp_path / "dog" / "3.png").read_bytes()
    (tmp_path / "dog" / "3.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DatacondenseError, match=r"dog/3\.png: cannot be read as an image"):
        load_dataset(tmp_path)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # 64 pixels: PIL warns
    with pytest.raises(DatacondenseError, match=r"cat/0\.png: the image has more than 40 pixels"):
        load_dataset(tmp_path)


def test_folders_that_hold_no_dataset(tmp_path):
    empty, flat, file = tmp_path / "empty", tmp_path / "flat", tmp_path / "file.zip"
    empty.mkdir()
    flat.mkdir()
    picture(0).save(flat / "0.png")
    file.write_bytes(b"")
    for path, message in [
        (empty, "empty: found no images; expected train.parquet"),
        (flat, "flat: found images, but not in a folder per class"),
        (file, "is a file; expected a folder"),
        (tmp_path / "missing", "missing: no such folder"),
    ]:
        with pytest.raises(UsageError, match=message):
            load_dataset(path)
        with pytest.raises(UsageError, match=message):
            load_dataset(str(path))


def test_classes_that_cannot_be_trained_or_tested(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    with pytest.raises(DatacondenseError, match=r"wolf/0\.png: class 'wolf' is not among .*cat, dog"):
        load_dataset(tmp_path)
    (tmp_path / "train" / "wolf").mkdir()
    with pytest.raises(UsageError, match="no training image for class 'wolf'"):
        load_dataset(tmp_path)
    fill(tmp_path / "single")
    for file in (tmp_path / "single" / "dog").iterdir():
        file.unlink()
    (tmp_path / "single" / "dog").rmdir()
    with pytest.raises(UsageError, match="one class only"):
        load_dataset(tmp_path / "single")


# Real data


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real datasets are not beside the repository")
@pytest.mark.parametrize(
    ("name", "counts", "shape"),
    [("mnist", (60_000, 10_000), (1, 28, 28)), ("usps", (7_291, 2_007), (1, 16, 16)),
     ("svhn_mini", (883, 200), (3, 32, 32))],
)  # fmt: skip
def test_real_data(name, counts, shape, monkeypatch):
    monkeypatch.setenv("DATACONDENSE_DATA", str(REAL_DATA))
    splits = load_dataset(name)
    assert (len(splits.train), len(splits.test)) == counts
    assert splits.train.image_shape == splits.test.image_shape == shape
    assert splits.train.class_names == tuple("0123456789")
    if name == "mnist":
        assert splits.train.mean == pytest.approx((0.1307,), abs=5e-5)
        assert splits.train.std == pytest.approx((0.3081,), abs=5e-5)
