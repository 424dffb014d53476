"""Source: data that was read once is read again, from anywhere, and says so when it has moved."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from datacondense.data import DataSplits, Source, load_dataset
from datacondense.errors import DatacondenseError, UsageError
from pictures import arrays, fill, rows, table, write


@pytest.fixture(autouse=True)
def no_data_directory(monkeypatch):
    monkeypatch.delenv("DATACONDENSE_DATA", raising=False)


def read_back(splits: DataSplits) -> DataSplits:
    """What the source of `splits` yields after its way through JSON."""
    return load_dataset(Source.from_record(json.loads(json.dumps(splits.train.description["source"]))))


def assert_same(first: DataSplits, second: DataSplits) -> None:
    assert second.train.fingerprint == first.train.fingerprint
    assert second.test.fingerprint == first.test.fingerprint
    assert second.train.class_names == first.train.class_names
    assert second.train.name == first.train.name
    assert second.source == first.source == first.test.source


def test_a_folder_named_from_where_it_is_read_is_read_again_from_elsewhere(tmp_path, monkeypatch):
    fill(tmp_path / "pets", each=10)
    monkeypatch.chdir(tmp_path)
    splits = load_dataset("pets", resize="4x6", seed=3)
    assert splits.source == Source(str(tmp_path / "pets"), resize="4x6", split_seed=3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert_same(splits, read_back(splits))


def test_named_columns_are_part_of_the_source(tmp_path):
    for file, n in (("train", 6), ("test", 4)):
        columns = rows(n) | {"small": rows(n, first=9)["image"], "coarse": [1, 0] * (n // 2)}
        write(tmp_path / f"{file}.parquet", columns)
    splits = load_dataset(tmp_path, image_column="small", label_column="coarse", seed=7)
    assert splits.source == Source(str(tmp_path), image_column="small", label_column="coarse")
    assert_same(splits, read_back(splits))


def test_one_parquet_file(tmp_path, monkeypatch):
    write(tmp_path / "single.parquet", rows(10))
    monkeypatch.chdir(tmp_path)
    splits = load_dataset("./single.parquet", seed=1)
    assert splits.source == Source(str(tmp_path / "single.parquet"), split_seed=1)
    assert_same(splits, read_back(splits))


def test_a_name_holds_nothing_of_the_machine(tmp_path, monkeypatch):
    fill(tmp_path / "here" / "pets")
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path / "here"))
    splits = load_dataset("pets")
    assert splits.source == Source("pets", split_seed=0)
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path / "there"))
    assert_same(splits, read_back(splits))


def test_the_built_in_digits():
    splits = load_dataset("digits", resize=16)
    assert splits.source == Source("digits", resize="16x16")
    assert_same(splits, read_back(splits))


@pytest.mark.parametrize(
    ("name", "revision"),
    [("cifar10", "0b2714987fa478483af9968de7c934580d0bb9a2"), ("some/pets:small", None)],
)
def test_a_dataset_of_the_hub_is_asked_for_again_as_it_was(name, revision, monkeypatch):
    import datasets

    requests = []

    def answer(*asked, revision):
        requests.append((*asked, revision))
        return datasets.DatasetDict(train=table(rows(6)), test=table(rows(4)))

    monkeypatch.setattr(datasets, "load_dataset", answer)
    splits = load_dataset(name)
    assert splits.source == Source(name, revision=revision)
    assert_same(splits, read_back(splits))
    assert requests[0] == requests[1]


@pytest.mark.parametrize("place", ["a folder", "a name"])
def test_data_that_has_moved_is_one_error(place, tmp_path, monkeypatch):
    folder = fill(tmp_path / "pets")
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path))
    source = load_dataset(folder if place == "a folder" else "pets").source
    folder.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=rf"were read from {source.data}, which is no longer .* --data"):
        load_dataset(source)


def test_data_in_memory_has_no_source_and_subsets_keep_theirs(tmp_path):
    splits = load_dataset(arrays())
    assert splits.source is splits.train.description["source"] is None
    fill(tmp_path)
    read = load_dataset(tmp_path)
    assert read.train.subset(read.train.indices_by_class[0]).source == read.source
    assert load_dataset(read.train, resize=4).source is None


def test_the_source_does_not_change_the_identity_of_images(tmp_path):
    first, second = (load_dataset(fill(tmp_path / name)) for name in ("first", "second"))
    assert first.source != second.source
    assert first.train.fingerprint == second.train.fingerprint


@pytest.mark.parametrize(
    "record",
    [None, [], "digits", {}, {"data": 3}, {"data": "digits", "resize": [4, 4]},
     {"data": "digits", "split_seed": "0"}, {"data": "digits", "revision": 7}],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_one_error(record):
    with pytest.raises(DatacondenseError, match="the record of where the data is from does not fit"):
        Source.from_record(record)


def test_a_record_holds_all_fields():
    source = Source("some/pets", "abc", "image", "label", "4x6", 3)
    assert Source.from_record(asdict(source)) == source
