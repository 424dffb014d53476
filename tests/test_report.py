"""The report: what it collects, what it shows, and what can be copied from it."""

from __future__ import annotations

import importlib.util
import json
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import datacondense as dc
from conftest import toy_dataset
from datacondense import CondensedDataset, ImageDataset, RandomSelection, Recipe, UsageError, condense
from datacondense.artifact.condensed import METRICS
from datacondense.cli import main
from datacondense.evaluation.comparison import welch
from datacondense.evaluation.predictions import Predictions
from datacondense.reading import Damaged
from datacondense.report.page import Exhibit, page
from datacondense.report.pictures import evenly, gallery
from datacondense.report.reuse import condense_command, training_code
from datacondense.report.scores import baselines, own, read_scores
from datacondense.snapshots import Snapshots
from dying import MACHINE, Drift, run
from test_run_folder import content

pytestmark = pytest.mark.slow

EVIL = "<script>alert(1)</script>&\"'</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
TINY = ["--networks", "convnet(depth=1,width=4)", "--epochs", "2", "--trials", "2", "--precision", "float32",
        "--compile", "off", "--quiet"]  # fmt: skip


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def having(self, tag: str, attribute: str) -> list[str | None]:
        return [about[attribute] for name, about in self.tags if name == tag and attribute in about]


def score(condensed: CondensedDataset, accuracies: list[float], **more: Any) -> dict[str, Any]:
    """An entry as `evaluate --json` writes it."""
    recipe = {"epochs": 300, "augmentation": "none"}
    return {"accuracies": accuracies, "recipe": recipe, "condensed": condensed.record, **more}


def evil_dataset() -> ImageDataset:
    toy = toy_dataset()
    return ImageDataset.create(toy.images, toy.labels, [EVIL, "row", "a & b"], name="<b>toy</b>")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `drift`, which has snapshots and scores, `chosen`, and their page."""
    folder = tmp_path_factory.mktemp("shown")
    real = evil_dataset()
    drift = condense(real, 2, Drift(iterations=4), machine=MACHINE, out=folder / "drift", snapshot_every=1)
    chosen = condense(real, 2, RandomSelection(), machine=MACHINE, out=folder / "chosen")
    by_class = {"class_accuracies": [[0.5, 0.6, 1.0], [0.7, 0.8, None]],
                "confusion": [[6, 3, 1], [0, 14, 6], [0, 0, 10]]}  # fmt: skip
    scores = {
        "drift convnet": score(drift, [0.5, 0.75], **by_class),
        **{f"drift {k} convnet": score(drift, [0.1 * k, 0.2], snapshot=k) for k in (0, 2)},
        "chosen convnet": score(chosen, [0.5, 0.25]),
    }
    (folder / "scores.json").write_text(json.dumps(scores))
    known = read_scores([folder / "scores.json"])
    sets = [Exhibit.read(folder / name, known) for name in ("drift", "chosen")]
    (folder / "page.html").write_text(page(sets))
    return folder


def test_the_page_is_one_file_whose_only_scripts_are_its_own(shown: Path) -> None:
    html = (shown / "page.html").read_text()
    elements = Elements(html)
    kinds = [about.get("type") for tag, about in elements.tags if tag == "script"]
    assert kinds.count(None) == 2
    assert set(kinds) == {None, "application/json"}
    assert not [about for tag, about in elements.tags if any(name.startswith("on") for name in about)]
    assert elements.having("script", "src") == []
    assert all(str(source).startswith("data:image/png;base64,") for source in elements.having("img", "src"))
    assert {str(link)[0] for link in elements.having("a", "href")} == {"#"}
    assert EVIL in "".join(elements.text)
    assert "49" not in elements.having("div", "title")
    (policy,) = (p for p in elements.having("meta", "content") if p and p.startswith("default-src"))
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe-eval" not in policy


def test_everything_that_is_seen_can_be_heard(shown: Path) -> None:
    elements = Elements((shown / "page.html").read_text())
    images = [about for tag, about in elements.tags if tag == "img" and "width" in about]
    assert len(images) == 2 * 3 * 2
    assert all(about["alt"] for about in images)
    headings = [tag for tag, _ in elements.tags if tag in ("h1", "h2", "h3", "h4")]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    labelled = set(elements.having("label", "for"))
    assert {about["id"] for tag, about in elements.tags if tag == "input"} <= labelled
    ids = [about["id"] for _, about in elements.tags if "id" in about]
    assert len(set(ids)) == len(ids)
    assert all(about.get("aria-label") for _, about in elements.tags if about.get("role") == "img")


def test_it_says_what_is_known(shown: Path) -> None:
    text = " ".join("".join(Elements((shown / "page.html").read_text()).text).split())
    first, second = (dc.Score(accuracies) for accuracies in ((0.5, 0.75), (0.5, 0.25)))
    p = welch(first, second)
    for said in ("62.5 ± 12.5 % (n = 2), convnet, 300 epochs", f"{p:.2g}", "10.0 ± 10.0 % (n = 2)",
                 "60.0 ± 10.0 %", "4, the result", "No command makes it again", "30.0 %"):  # fmt: skip
        assert said in text, said


def test_a_set_of_50_images_per_class_fits_into_5_mb(tmp_path: Path) -> None:
    noise = torch.rand(500, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(10).repeat_interleave(50)
    data = ImageDataset.create(noise, labels, [str(c) for c in range(10)], name="noise")
    made = condense(data, 50, RandomSelection(), machine=MACHINE)
    snapshots = Snapshots(tuple(range(40)), (noise.half(),) * 40)
    distances = {"distance": [(k, 1 / k) for k in range(1, 20_001)]}
    exhibit = Exhibit(tmp_path, made, distances, snapshots, None, (), ())
    assert len(page([exhibit]).encode()) < 5_000_000
    shown = gallery(made.data, snapshots)
    assert shown.shown == 50
    assert len(shown.frames) >= 10
    assert shown.frames[0].iteration == 0
    assert shown.frames[-1].iteration == 39
    assert len(shown.frames[0].images) == 10 * shown.columns


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
def test_evenly_spread_positions_have_both_ends(n: int) -> None:
    found = list(evenly(n, 5))
    assert len(found) == min(n, 5)
    assert found == sorted(set(found))
    assert found[:1] + found[-1:] == [0, n - 1][: 2 * bool(n)]


def test_pictures_are_the_pixels(shown: Path) -> None:
    import base64
    import io

    import numpy as np
    from PIL import Image

    condensed = CondensedDataset.load(shown / "drift")
    found = gallery(condensed.data, Snapshots())
    rows = [row.images for row in found.rows]
    for image, uri in zip(condensed.images, [uri for row in rows for uri in row], strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
        assert np.array_equal(pixels, (image[0].clamp(0, 1) * 255).round().byte().numpy())


def test_baselines_are_of_the_same_data_and_number(tmp_path: Path) -> None:
    ours = run(None)
    other = condense(toy_dataset(n=30), 2, RandomSelection(), machine=MACHINE)
    one, two = (condense(toy_dataset(), 2, RandomSelection(), seed=s, machine=MACHINE) for s in (0, 1))
    single = condense(toy_dataset(), 1, RandomSelection(), machine=MACHINE)
    whole = ours.record | {"method": {"name": "whole", "settings": {}}}
    del whole["ipc"]
    (tmp_path / "a.json").write_text(
        json.dumps(
            {"x convnet": score(ours, [0.9]), "y convnet": score(one, [0.5]), "z mlp": score(one, [0.1])}
        )
    )
    (tmp_path / "b.json").write_text(
        json.dumps({"convnet": score(two, [0.7]), "s convnet": score(single, [0.3]),
                    "o convnet": score(other, [0.2]), "w convnet": score(ours, [1.0]) | {"condensed": whole}})
    )  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps({"x convnet": score(ours, [0.8, 0.9])}))
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "broken.json").write_text("[")
    known = read_scores([tmp_path])
    assert [found.score.accuracies for found in own(known, ours)] == [(0.8, 0.9)]
    beside = baselines(known, ours, {"convnet"})
    assert [(found.method, sorted(found.score.accuracies)) for found in beside] == [
        ("random", [0.5, 0.7]),
        ("whole", [1.0]),
    ]
    with pytest.raises(Damaged, match=r"broken\.json is damaged .*evaluate --json"):
        read_scores([tmp_path / "broken.json"])
    with pytest.raises(UsageError, match=r"there is no .*missing\.json"):
        read_scores([tmp_path / "missing.json"])


def test_committed_results_are_known_beside_a_set() -> None:
    known = read_scores([Path(__file__).parent.parent / "results"])
    of_mnist = [found for found in known if found.made["data"].get("name") == "mnist"]
    assert {"random", "herding", "whole", "gradient-matching"} <= {found.method for found in of_mnist}
    assert all(0 <= found.score.mean <= 1 for found in known)


def test_predictions_are_counted_by_class() -> None:
    labels, predicted = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([0, 1, 2, 0, 2])
    found = Predictions.count(predicted, labels, 3)
    assert found.confusion.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 2]]
    assert found.accuracy == 3 / 5
    assert found.class_accuracies == [1 / 2, None, 2 / 3]


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact of a known dataset, whose recipe takes no time."""
    monkeypatch.chdir(tmp_path)
    real = dc.load_dataset("digits", seed=3).train
    condense(
        real, 2, "random", "convnet(depth=1)", seed=3, machine=MACHINE, recipe=Recipe(epochs=2), out="d r"
    )
    return Path("d r")


def test_the_command_makes_the_set_again(digits: Path) -> None:
    condensed = CondensedDataset.load(digits)
    command = condense_command(condensed, Path("again"))
    assert command
    program, *words = shlex.split(command)
    assert program == "datacondense"
    assert main([*words, "--quiet"]) == 0
    again = CondensedDataset.load("again")
    assert again.record == condensed.record
    assert torch.equal(again.images, condensed.images)


def test_the_command_has_the_settings_that_are_not_the_usual_ones() -> None:
    method = dc.GradientMatching(iterations=2, outer_steps=1, image_learning_rate=0.25, siamese="dsa")
    real = dc.load_dataset("digits", resize="6x6").train
    made = condense(real, 1, method, "convnet(depth=1,width=4)", machine=MACHINE)
    words = shlex.split(condense_command(made, Path("x")) or "")
    for flag, value in {"--iterations": "2", "--outer-steps": "1", "--image-learning-rate": "0.25",
                        "--siamese": "dsa-digits", "--network": made.record["network"], "--resize": "6x6",
                        "--compile": "off", "--precision": "float32", "--out": "x"}.items():  # fmt: skip
        assert words[words.index(flag) + 1] == value
    assert "--network-epochs" not in words
    assert condense_command(run(None), Path("x")) is None
    data = made.record["data"]
    split = made.record | {"data": data | {"source": data["source"] | {"split_seed": 7}}}
    assert condense_command(replace(made, record=split), Path("x")) is None


def test_the_code_runs(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = training_code(CondensedDataset.load(digits), digits).replace("trials=20", "trials=1")
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["logits"].shape == (20, 10)
    assert sum(len(labels) for _, labels in names["batches"]) == 20
    assert "(n = 1)" in capsys.readouterr().out


def test_the_command_line_measures_and_remembers(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(digits), *TINY, "--json", "scores.json"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "report: datacondense report 'd r' --scores scores.json --out 'd r.html'"
    (result,) = json.loads(Path("scores.json").read_text()).values()
    confusion, classes = torch.tensor(result["confusion"]), result["class_accuracies"]
    per_network = int(confusion.sum()) / 2
    assert int(confusion.trace()) == pytest.approx(sum(result["accuracies"]) * per_network)
    assert torch.tensor(classes).shape == (2, 10)
    mean = confusion.diagonal() / confusion.sum(1)
    assert mean.tolist() == pytest.approx(torch.tensor(classes).mean(0).tolist(), abs=1e-6)

    reached = f"{dc.Score(tuple(result['accuracies']))}, convnet(depth=1,width=4), 2 epochs"
    report = shlex.split(line.partition("datacondense ")[2])
    assert main(report) == 0
    first = Path("d r.html").read_text()
    assert reached in first
    assert main(report) == 2, "it would replace a page without leave"
    assert main([*report, "--overwrite"]) == 0
    assert Path("d r.html").read_text() == first, "equal pages have equal bytes"
    assert main(["report", str(digits), *TINY, "--out", "measured.html", "--json", "again.json"]) == 0
    (again,) = json.loads(Path("again.json").read_text()).values()
    assert again["accuracies"] == result["accuracies"]
    assert reached in Path("measured.html").read_text()
    Path("mine.html").write_text("<p>mine</p>")
    assert main(["report", str(digits), "--out", "mine.html", "--overwrite"]) == 2
    assert Path("mine.html").read_text() == "<p>mine</p>"


def test_snapshots_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = condense(dc.load_dataset("digits").train, 1, Drift(), machine=MACHINE, out="r", snapshot_every=2)
    quick = [word if word != "--trials" else "--snapshot-trials" for word in TINY]
    assert main(["report", "r", *quick, "--json", "s.json"]) == 0
    found = own(read_scores([Path("s.json")]), made)
    assert [one.snapshot for one in found] == [0, 2]
    assert [len(one.score.accuracies) for one in found] == [2, 2]


def test_what_cannot_be_is_one_sentence(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "nowhere"]) == 2
    assert main(["report", str(digits), str(digits)]) == 2
    assert main(["report", str(digits), "--trials", "0"]) == 2
    (digits / METRICS).write_text('{"datacondense": "random", "iteration": "first"}\n')
    assert main(["report", str(digits)]) == 1
    said = capsys.readouterr().err
    assert "metrics.jsonl is damaged" in said
    assert "Traceback" not in said
    assert set(content(Path())) == set(content(Path())) - {"report.html"}, "nothing was written"
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "datacondense.report.find_spec", lambda name: None if name == "altair" else found(name)
    )
    assert main(["report", str(digits)]) == 2
    assert (
        "reports need altair; in the folder of the source, pip install -e '.[report]'"
        in capsys.readouterr().err
    )


def test_the_tables_of_the_paper_open_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, out = Path(__file__).parent.parent / "results", tmp_path / "results.html"
    assert main(["paper", "report", "--results", str(results), "--html", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    elements = Elements(out.read_text())
    text = "".join(elements.text)
    tags = [tag for tag, _ in elements.tags]
    assert "| --- |" not in text
    assert tags.count("table") > 5
    assert "br" in tags
    assert "<br>" not in text
    assert "92.2 ± 0.5 / 91.7 ± 0.5" in text
    assert len(elements.having("script", "data-for")) >= 3
    assert "Accuracy against time" in text
    assert "fashion_mnist, 10 per class, protocol paper" in text
    assert "78.9 ± 0.2 %" in text
    assert elements.having("img", "src") == []
