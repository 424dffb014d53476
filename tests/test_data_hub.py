"""The Hugging Face Hub without a connection: one sentence and nothing else, or what the cache has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pictures import rows, write

pytestmark = pytest.mark.slow

COMMIT = "1234567890" * 4

LOAD = """
import json, sys
from datacondense import load_dataset
from datacondense.errors import DatacondenseError
try:
    splits = load_dataset(sys.argv[1])
except DatacondenseError as error:
    print(json.dumps({"error": str(error)}))
else:
    found = {"train": len(splits.train), "test": len(splits.test), "notes": splits.notes}
    print(json.dumps(found | {"source": splits.train.description["source"]}))
"""


def load_unconnected(name: str, home: Path) -> dict[str, object]:
    """What a process of its own finds by `name` where nothing listens at the Hub's address."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "DATAC"))}
    variables |= {"HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9"}
    found = subprocess.run(
        [sys.executable, "-c", LOAD, name],
        env=variables, cwd=home, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stderr == ""
    return json.loads(found.stdout)


def fill_cache(home: Path, dataset: str, **files: str) -> None:
    """What `datasets` leaves of a dataset that was downloaded at `COMMIT`."""
    from datasets.packaged_modules.parquet.parquet import Parquet

    builder = Parquet(
        cache_dir=str(home / "built"), dataset_name=dataset.split("/")[1], hash=COMMIT, data_files=files
    )
    builder.download_and_prepare()
    place = home / "datasets" / dataset.replace("/", "___") / "default" / "0.0.0"
    place.mkdir(parents=True)
    Path(builder.cache_dir).rename(place / COMMIT)


@pytest.mark.parametrize(("name", "hub_id"), [("mnist", "ylecun/mnist"), ("some/pets:small", "some/pets")])
def test_without_a_connection_there_is_one_sentence(name, hub_id, tmp_path):
    message = str(load_unconnected(name, tmp_path)["error"])
    assert message.startswith(
        f"{hub_id}: cannot be read from the Hugging Face Hub (no connection, and the ca"
    )
    assert "\n" not in message


@pytest.mark.parametrize(("name", "hub_id"), [("mnist", "ylecun/mnist"), ("some/pets", "some/pets")])
def test_without_a_connection_the_cache_is_read(name, hub_id, tmp_path):
    train, test = (str(write(tmp_path / f"{n}.parquet", rows(n))) for n in (6, 4))
    fill_cache(tmp_path, hub_id, train=train, test=test)
    found = load_unconnected(name, tmp_path)
    assert (found["train"], found["test"]) == (6, 4)
    assert (found["source"]["data"], found["source"]["revision"]) == (name, COMMIT)
    pinned = name == "mnist"
    assert len(found["notes"]) == pinned
    assert all(f"the cache has commit {COMMIT} and not" in note for note in found["notes"])


def test_cells_of_a_dataset_of_the_hub_cannot_name_files_of_this_machine(tmp_path):
    import pyarrow
    import pyarrow.parquet

    private = tmp_path / "private.png"
    rows()["image"][0].save(private)
    cells = pyarrow.array([{"bytes": None, "path": str(private)}] * 4,
                          pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}))  # fmt: skip
    table = pyarrow.table({"image": cells, "label": [0, 1, 0, 1]})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    home = tmp_path / "home"
    fill_cache(home, "some/pets", train=str(tmp_path / "train.parquet"))
    message = str(load_unconnected("some/pets", home)["error"])
    assert "row 0: the file" in message
    assert "is outside the folder of the dataset" in message
