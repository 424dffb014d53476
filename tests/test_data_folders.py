"""Layouts of folders: splits in any case, nested classes, files that list images with their labels."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from datacondense.data import load_dataset
from datacondense.errors import DatacondenseError, UsageError
from pictures import NAMES, fill, picture, rows, table


def fill_flat(folder: Path, n: int = 10, first: int = 0) -> list[str]:
    """Pictures without a folder per class; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i}.png" for i in range(first, first + n)]
    for i, name in enumerate(names, first):
        picture(i).save(folder / name)
    return names


def write_csv(file: Path, header: str, lines: list[tuple[object, ...]]) -> Path:
    text = "\n".join([header, *(",".join(map(str, line)) for line in lines)])
    file.write_text(text + "\n")
    return file


# Splits and nesting


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("TRAIN", "test"), ("train", "Val")])
def test_the_case_of_split_names_does_not_matter(train, test, tmp_path):
    fill(tmp_path / train)
    fill(tmp_path / test, each=2)
    splits = load_dataset(tmp_path)
    assert splits.train.class_names == NAMES
    assert (len(splits.train), len(splits.test)) == (10, 4)


def test_the_case_of_split_names_does_not_matter_for_hugging_face():
    import datasets

    splits = load_dataset(datasets.DatasetDict(Train=table(rows(6)), Test=table(rows(4))))
    assert (len(splits.train), len(splits.test)) == (6, 4)


@pytest.mark.skipif(sys.platform == "darwin", reason="file names do not tell case")
def test_two_folders_that_could_be_the_same_split(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "Train")
    with pytest.raises(UsageError, match="Train and train could both hold the training images"):
        load_dataset(tmp_path)


def test_images_in_a_folder_of_a_class_count_as_the_class_and_a_note_says_so(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    (tmp_path / "train" / "cat" / "kittens").mkdir()
    picture(7).save(tmp_path / "train" / "cat" / "kittens" / "7.png")
    splits = load_dataset(tmp_path)
    assert splits.train.labels.tolist() == [0] * 6 + [1] * 5
    (note,) = splits.notes
    assert note.endswith("train/cat: images in its subfolders count as class 'cat'")


def test_folders_of_folders_of_images_are_no_classes(tmp_path):
    fill(tmp_path / "photos")
    with pytest.raises(UsageError, match=r"photos hold no images, only folders .* photos/cat; give the fold"):
        load_dataset(tmp_path)
    fill(tmp_path / "paintings")
    with pytest.raises(UsageError, match=r"paintings, photos hold no images, only folders of images"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path / "photos").train.class_names == NAMES


def test_an_empty_class_folder_is_named_with_what_can_be_done(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    (tmp_path / "train" / "owl").mkdir()
    (tmp_path / "test" / "owl").mkdir()
    with pytest.raises(UsageError, match=r"train/owl: found no training .* add images or remove the folder"):
        load_dataset(tmp_path)
    picture(3).save(tmp_path / "train" / "owl" / "3.png")
    splits = load_dataset(tmp_path)
    assert splits.train.class_names == splits.test.class_names == (*NAMES, "owl")
    assert len(splits.test) == 10


# Names


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text")
def test_a_class_folder_whose_name_is_not_utf_8(tmp_path):
    fill(tmp_path)
    os.rename(bytes(tmp_path / "cat"), os.path.join(bytes(tmp_path), b"caf\xe9"))
    with pytest.raises(DatacondenseError, match=r"the class name 'caf\\udce9' is not valid UTF-8; rename it"):
        load_dataset(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text")
def test_a_dataset_whose_folder_is_not_utf_8(tmp_path):
    folder = fill(Path(os.fsdecode(os.path.join(bytes(tmp_path), b"caf\xe9"))))
    with pytest.raises(DatacondenseError, match=r"the path '.*caf\\udce9' is not valid UTF-8; rename it"):
        load_dataset(folder)


def test_names_cannot_control_the_terminal(tmp_path):
    fill(tmp_path)
    (tmp_path / "dog").rename(tmp_path / "\x1b[31mdog\n\u202e")
    (tmp_path / "cat" / "\x1b[2J.png").write_text("no image")
    with pytest.raises(DatacondenseError, match=r"cat/\\x1b\[2J\.png: cannot be read") as caught:
        load_dataset(tmp_path)
    assert str(caught.value).isprintable()
    (tmp_path / "cat" / "\x1b[2J.png").unlink()
    (tmp_path / "\x1b[31mdog\n\u202e" / "puppies").mkdir()
    picture(0).save(tmp_path / "\x1b[31mdog\n\u202e" / "puppies" / "0.png")
    notes = load_dataset(tmp_path).notes
    assert "subfolders" in notes[0]
    assert all(note.isprintable() for note in notes)


def test_a_column_of_texts_is_no_column_of_labels():
    images = [picture(i) for i in range(4)]
    data = table({"image": images, "caption": ["a", "b" * 2000, "a", "b" * 2000]})
    with pytest.raises(DatacondenseError, match="a class name has 2,000 characters, 'bbbbbbbb"):
        load_dataset(data)


# Listings


@pytest.mark.parametrize("columns", ["file_name,label", "label,path", "image,class", "File,Label,other"])
@pytest.mark.parametrize("name", ["metadata.csv", "labels.CSV"])
def test_a_file_that_lists_images(columns, name, tmp_path):
    files = fill_flat(tmp_path / "images")
    rows = [(f"images/{file}", NAMES[i % 2], "x") for i, file in enumerate(files)]
    if columns.startswith("label"):
        rows = [(label, file) for file, label, _ in rows]
    write_csv(tmp_path / name, columns, [row[: columns.count(",") + 1] for row in rows])
    splits = load_dataset(tmp_path)
    assert splits.train.class_names == NAMES
    assert (len(splits.train), len(splits.test)) == (8, 2)
    assert name in splits.notes[0]


def test_images_and_labels_of_a_listing_belong_together(tmp_path):
    files = fill_flat(tmp_path)
    write_csv(tmp_path / "train.csv", "file_name,label", [(f, 9 + i % 2) for i, f in enumerate(files)])
    more = fill_flat(tmp_path / "new", n=4, first=50)
    write_csv(tmp_path / "test.csv", "file_name,label", [(f"new/{f}", 9) for f in reversed(more)])
    splits = load_dataset(tmp_path)
    assert splits.train.class_names == ("9", "10"), "numbers in their order"
    assert splits.train.labels.tolist() == [0, 1] * 5
    for index, shown in ((3, splits.train.images[3]), (53, splits.test.images[0])):
        assert shown[0].tolist() == np.array(picture(index)).tolist()
    assert splits.test.labels.tolist() == [0] * 4


def test_the_layout_of_hugging_face_with_a_listing_in_each_split(tmp_path):
    for split, n in (("train", 6), ("test", 4)):
        files = fill_flat(tmp_path / split, n)
        lines = [json.dumps({"file_name": file, "label": i % 2}) for i, file in enumerate(files)]
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(lines))
    splits = load_dataset(tmp_path)
    assert (len(splits.train), len(splits.test)) == (6, 4)
    assert splits.train.class_names == ("0", "1")


def test_columns_of_a_listing_may_be_named(tmp_path):
    files = fill_flat(tmp_path)
    write_csv(tmp_path / "breeds.csv", "id,breed", [(f, i % 2) for i, f in enumerate(files)])
    splits = load_dataset(tmp_path, image_column="id", label_column="breed")
    assert load_dataset(splits.source).train.fingerprint == splits.train.fingerprint
    with pytest.raises(UsageError, match=r"\(breeds\.csv has id, breed\); name those .* --image-column"):
        load_dataset(tmp_path)
    with pytest.raises(UsageError, match=r"breeds\.csv has id, breed"):
        load_dataset(tmp_path, image_column="id", label_column="colour")


def test_a_table_that_lists_no_images_is_none_of_our_business(tmp_path):
    fill(tmp_path)
    write_csv(tmp_path / "weights.csv", "epoch,loss", [(1, 0.5)])
    assert load_dataset(tmp_path).train.class_names == NAMES


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([("0.png", 0), ("../private.png", 1)], "row 1: the file .* is outside the folder of the dataset"),
        ([("0.png", 0), ("{private}", 1)], "row 1: the file .* is outside the folder of the dataset"),
        ([("0.png", 0), ("9.png", 1)], "row 1: cannot be read as an image .no such file"),
        ([("0.png", 0), ("", 1)], "row 1: found '' in column 'file_name'"),
        ([("0.png", 0), ("1.png", "")], "row 1: has no label"),
        ([("0.png", 0), ("1.png",)], "row 1: the label is None"),
        ([("0.png", 0), ("1.png", 0)], "one class only"),
    ],
)
def test_rows_that_are_wrong_are_named(lines, message, tmp_path):
    picture(0).save(tmp_path / "private.png")
    fill_flat(tmp_path / "data", 2)
    lines = [tuple(str(cell).format(private=tmp_path / "private.png") for cell in line) for line in lines]
    write_csv(tmp_path / "data" / "metadata.csv", "file_name,label", lines)
    with pytest.raises(DatacondenseError, match=message):
        load_dataset(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "content"),
    [("metadata.csv", b"file_name,label\n\xff\xfe,1\n"), ("metadata.jsonl", b"[1, 2]\n"),
     ("metadata.jsonl", b'{"file_name": "0.png", "label": ' + b"[" * 100_000),
     ("metadata.csv", b"file_name,label\n" + b"x" * 200_000 + b",1\n")],
    ids=["not text", "no object", "nested", "long"],
)  # fmt: skip
def test_a_listing_that_is_none(name, content, tmp_path):
    fill_flat(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatacondenseError, match=r"metadata\.\w+: cannot be read as a table"):
        load_dataset(tmp_path)


def test_two_listings_of_one_split(tmp_path):
    files = fill_flat(tmp_path)
    for name in ("a.csv", "metadata.csv"):
        write_csv(tmp_path / name, "file_name,label", [(f, i % 2) for i, f in enumerate(files)])
    with pytest.raises(UsageError, match=r"a\.csv and metadata\.csv could both hold the training images"):
        load_dataset(tmp_path)
