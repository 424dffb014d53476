"""Images in a file are those in memory, whatever is done with them and made of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import larger
from conftest import peak_tensor_bytes
from datacondense import ConvNet, Machine, Recipe, condense, evaluate, load_dataset
from datacondense.data.images import ImageDataset
from datacondense.data.kept import START
from datacondense.data.pictures import decode_all
from datacondense.data.stored import RowWriter, StoredTensor, pieces, taken
from datacondense.errors import DatacondenseError, UsageError
from datacondense.methods import (
    DistributionMatching,
    Forgetting,
    GradientMatching,
    Herding,
    KCenter,
    KMeans,
)
from datacondense.methods.base import Method
from pictures import NAMES, fill, picture, rows, table
from stored import (
    in_memory,
    make_folder,
    make_late_colour,
    make_listing,
    make_parquet,
    make_splits,
    require_same,
)

pytestmark = pytest.mark.usefixtures("in_files")


MACHINE = Machine(torch.device("cpu"), "float32", micro_batch=3)
NETWORK = ConvNet(width=4, depth=2)


VALUES = torch.randint(0, 256, (11, 3, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def stored() -> StoredTensor:
    writer = RowWriter((3, 4, 5), torch.uint8, 11)
    for part in VALUES.split(4):
        writer.add(part)
    return writer.finish()


@pytest.mark.parametrize(
    "index",
    [
        3, -1, slice(2, 7), slice(None, None, 3), torch.tensor([4, 4, 10, 0]), [5, 6],
        torch.arange(11) % 2 == 0, torch.tensor([], dtype=torch.int64), np.array([2, 9]), torch.tensor(2),
        (slice(None), 0), (3, 1, slice(2)), (torch.tensor([1, 0]), slice(None), 2), ..., (..., 1), None,
    ],
)  # fmt: skip
def test_an_index_takes_what_it_takes_of_any_tensor(stored, index):
    found = stored[index]
    assert type(found) is torch.Tensor
    assert torch.equal(found, VALUES[index])


@pytest.mark.parametrize("index", [11, -12, torch.tensor([0, 11])])
def test_there_are_no_rows_beyond_the_last(stored, index):
    with pytest.raises(IndexError):
        stored[index]


def test_parts_stay_in_the_file_and_parts_of_parts_do(stored):
    few = taken(taken(stored, torch.tensor([9, 1, 2, 3, 7])), torch.tensor([4, 0, 2]))
    assert isinstance(few, StoredTensor)
    assert torch.equal(few[:], VALUES[torch.tensor([7, 9, 2])])
    for split in (stored.split(4), torch.split(stored, 4), stored.split(4, dim=0)):
        assert [type(part) for part in split] == [StoredTensor] * 3
        assert torch.equal(torch.cat([part[:] for part in split]), VALUES)
    assert torch.equal(torch.cat(list(pieces(stored))), VALUES)


def test_all_else_computes_with_the_values(stored):
    assert torch.equal(stored.float() / 255, VALUES.float() / 255)
    assert torch.equal(torch.cat([stored, VALUES]), torch.cat([VALUES, VALUES]))
    assert torch.equal(torch.stack(list(stored)), VALUES)
    assert np.array_equal(stored.numpy(), VALUES.numpy())
    with torch.inference_mode():
        assert torch.equal(torch.cat([part.to("cpu") for part in stored.split(2)]), VALUES)
    assert (stored.shape, stored.dtype, len(stored), stored.device) == (
        VALUES.shape, VALUES.dtype, 11, VALUES.device,
    )  # fmt: skip


def test_its_values_cannot_be_changed(stored):
    for change in (lambda: stored.fill_(0), lambda: stored.__setitem__(0, 0), lambda: stored.add_(1)):
        with pytest.raises(DatacondenseError, match="cannot be changed"):
            change()
    assert torch.equal(stored[:], VALUES)


def test_grey_images_are_shown_with_three_channels():
    writer = RowWriter((1, 4, 5), torch.uint8, 11)
    writer.add(VALUES[:, :1])
    assert torch.equal(writer.finish().with_channels(3)[2:5], VALUES[2:5, :1].expand(-1, 3, -1, -1))


def test_a_file_that_is_cut_off_while_it_is_read_is_an_error(tmp_path, in_files):
    load = load_dataset(fill(tmp_path))
    for path in in_files.glob("images-*"):
        os.truncate(path, START + 100)
    with pytest.raises(DatacondenseError, match="was cut off while it was in use"):
        load.train.images[:]


@pytest.mark.parametrize("make", [make_folder, make_splits, make_late_colour, make_parquet, make_listing])
@pytest.mark.parametrize("resize", [None, 6])
def test_images_from_files_are_the_same(make, resize, tmp_path):
    path = make(tmp_path / "data")
    expected = in_memory(path, resize=resize)
    for _ in range(2):  # decoded, and found again
        found = load_dataset(path, resize=resize)
        require_same(found.train, expected.train)
        require_same(found.test, expected.test)
        assert found.notes == expected.notes


def test_images_from_objects_are_the_same_and_leave_no_file(in_files):
    import datasets

    data = table(rows(20))
    pairs = [(picture(i), i % 2) for i in range(20)]
    for given in (data, datasets.DatasetDict(train=data, test=data), larger.Pairs(pairs)):
        require_same(load_dataset(given).train, in_memory(given).train)
    assert not list(in_files.iterdir())


def test_an_image_dataset_in_a_file_is_resized_and_divided_there(tmp_path):
    data = load_dataset(fill(tmp_path, each=9)).train
    smaller, expected = load_dataset(data, resize=4), in_memory(tmp_path).train
    require_same(smaller.train, in_memory(expected, resize=4).train)
    assert isinstance(data.subset(torch.tensor([3, 1])).images, StoredTensor)
    assert torch.equal(data[2:5].images[:], expected.images[2:5])


def test_only_what_is_large_goes_into_a_file(tmp_path, monkeypatch):
    fill(tmp_path, each=7)  # 14 images of 64 bytes
    for said, kind in (("896", torch.Tensor), ("895", StoredTensor), ("1K", torch.Tensor), ("1 kiB", None)):
        monkeypatch.setenv("DATACONDENSE_MEMORY", said)
        if kind:
            assert type(load_dataset(tmp_path).train.images) is kind
    monkeypatch.setenv("DATACONDENSE_MEMORY", "much")
    with pytest.raises(UsageError, match="DATACONDENSE_MEMORY: found 'much'; expected a number of bytes"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_picture_that_is_wrong_is_named(threads, tmp_path):
    torch.set_num_threads(threads)
    good = tmp_path / "good.png"
    picture(0).save(good)

    def pictures():
        for index in range(200):
            yield b"wrong" if index in (90, 120) else good
        raise DatacondenseError("too late")

    with pytest.raises(DatacondenseError, match=r"^picture 90: "):
        decode_all(pictures(), 200, "here", lambda index: f"picture {index}", None)


@pytest.mark.parametrize(
    "method",
    [
        DistributionMatching(iterations=2, real_batch=5),
        GradientMatching(iterations=2, real_batch=5),
        Herding(feature_epochs=2), KCenter(feature_epochs=2), KMeans(feature_epochs=2),
        Forgetting(feature_epochs=2),
        DistributionMatching(iterations=1, real_batch=5, initialisation="centres"),
    ],
    ids=["matched features", "matched gradients", "herding", "k-center", "k-means", "forgetting", "centres"],
)  # fmt: skip
def test_sets_and_scores_are_the_same_to_the_byte(method: Method, tmp_path: Path, monkeypatch):
    path = make_splits(tmp_path / "data")
    made = {}
    for kind, splits in (("memory", in_memory(path)), ("file", load_dataset(path))):
        cached = tmp_path / f"cache of {kind}"  # or the second would find the networks of the first
        monkeypatch.setenv("DATACONDENSE_CACHE", str(cached))
        out = tmp_path / kind
        one = condense(splits, 2, method, NETWORK, machine=MACHINE, out=out, validation=0.3)
        score = evaluate(one, splits, NETWORK, trials=2, recipe=Recipe(epochs=3), machine=MACHINE)
        baseline = evaluate(splits.train, splits, NETWORK, trials=1, recipe=Recipe(epochs=2), machine=MACHINE)
        files = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != "result.json"}
        made[kind] = files, score, baseline
    assert made["file"] == made["memory"]
    assert "condensed.safetensors" in made["file"][0]


@pytest.mark.slow
def test_going_through_them_takes_the_memory_of_a_piece(tmp_path):
    made = [picture(i, size=(64, 64), mode="RGB") for i in range(2)]
    for label, image in zip(NAMES, made, strict=True):
        (tmp_path / label).mkdir()
        image.save(tmp_path / label / "0.png")
        for index in range(1, 1500):
            os.link(tmp_path / label / "0.png", tmp_path / label / f"{index}.png")
    data = load_dataset(tmp_path).train
    whole = in_memory(tmp_path).train.images.nbytes

    def statistics() -> None:
        again = ImageDataset.create(data.images, data.labels, data.class_names)
        assert again.fingerprint == data.fingerprint

    assert whole > 28_000_000
    assert peak_tensor_bytes(statistics) < whole / 2
