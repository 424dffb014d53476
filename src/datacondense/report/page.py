"""The page of one condensed set, or of several side by side: what is known of them is collected and shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from datacondense.artifact.card import settings_in_effect
from datacondense.artifact.condensed import METRICS, CondensedDataset
from datacondense.artifact.result import RunResult, run_result
from datacondense.evaluation import Score
from datacondense.evaluation.comparison import welch
from datacondense.networks import describe_network, known_network
from datacondense.reading import Damaged, read_bytes
from datacondense.report import charts
from datacondense.report.charts import Chart
from datacondense.report.pictures import Gallery, gallery
from datacondense.report.rendering import render
from datacondense.report.reuse import condense_command, evaluate_command, training_code
from datacondense.report.scores import Evaluation, baselines, own, read_scores
from datacondense.sets import SCORES, named
from datacondense.snapshots import Snapshots, read_snapshots
from datacondense.text import duration, shown_shape

#: Of a row of metrics: its iteration, counted from 0; and an accuracy on held-out training images.
_ITERATION, _ACCURACY = "iteration", "accuracy"


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A condensed set, all that its folder says of it, and the scores that are known."""

    folder: Path
    condensed: CondensedDataset
    metrics: Mapping[str, charts.Series]
    snapshots: Snapshots
    result: RunResult | None
    evaluations: tuple[Evaluation, ...]
    baselines: tuple[Evaluation, ...]

    @classmethod
    def read(cls, folder: Path, evaluations: Sequence[Evaluation] = ()) -> Exhibit:
        """What is in `folder`, or in the ready set of this name, and of the evaluations those of it.

        Raises:
            UsageError: it is not an artifact.
            DatacondenseError: a file in it is damaged.
        """
        ready = named(folder)
        place = ready.folder if ready else folder.expanduser()
        condensed = CondensedDataset.load(place)
        evaluations = [*evaluations, *(read_scores([place / SCORES]) if ready else ())]
        ours = tuple(own(evaluations, condensed))
        networks = {one.network for one in ours} or {condensed.record["network"]}
        return cls(
            folder,
            condensed,
            _read_metrics(place / METRICS),
            read_snapshots(place, condensed.images.shape),
            ready.made.run if ready else run_result(place),
            ours,
            tuple(baselines(evaluations, condensed, networks)),
        )

    @property
    def title(self) -> str:
        """Its name next to others."""
        return str(self.folder)

    @property
    def scores(self) -> list[Evaluation]:
        """Those of the finished set."""
        return [one for one in self.evaluations if one.snapshot is None]


@dataclass(frozen=True)
class Shown:
    """A set as the template has it; the dictionaries are tables of names and values."""

    title: str
    name: str
    gallery: Gallery
    facts: dict[str, str]
    settings: dict[str, str]
    recipe: dict[str, str]
    provenance: dict[str, str]
    reference: str
    reproduce: str | None
    evaluate: str
    code: str
    iterations: int


@dataclass(frozen=True)
class Comparison:
    """A line of the table that compares sets."""

    title: str
    method: str
    ipc: str
    labels: str
    network: str
    protocol: str
    score: str
    p: str


def page(exhibits: Sequence[Exhibit]) -> str:
    """The page, as HTML."""
    sets = [_shown(one, len(exhibits)) for one in exhibits]
    return render(
        "report.html",
        title=sets[0].name if len(sets) == 1 else f"{len(sets)} condensed sets",
        sets=sets,
        progress=list(_progress(exhibits)),
        accuracy=list(_accuracy(exhibits)),
        classes=list(_classes(exhibits)),
        decoded=any(one.condensed.decoder.parts > 1 for one in exhibits),
        comparison=_comparison(exhibits) if len(exhibits) > 1 else [],
    )


def _shown(exhibit: Exhibit, sets: int) -> Shown:
    condensed, record = exhibit.condensed, exhibit.condensed.record
    method, data, ipc = record["method"], record["data"], condensed.ipc
    network, shape = known_network(record["network"]), condensed.data.image_shape
    each = f"{_images_per_class(condensed)} image{'s' if ipc > 1 else ''} per class"
    jpeg = " (JPEG)" if data.get("jpeg") else ""
    facts = {
        "method": method["name"],
        "images": f"{len(condensed):,}, {each}, {condensed.data.classes} classes, {shown_shape(shape)}",
        "labels": "of one class each" if condensed.probabilities is None else "probabilities (soft)",
        "condensed from": f"{data['name']}, {data['images']:,} training images{jpeg}",
    }
    if scores := [f"{one.score}, {_tested(one)}" for one in exhibit.scores]:
        facts["test accuracy"] = "; ".join(scores)
    settings: dict[str, Any] = settings_in_effect(record, network) | {
        "condensing network": describe_network(network, shape) if network else record["network"],
        "seed": record["seed"],
    }
    return Shown(
        exhibit.title,
        f"{data['name']}, {each}, by {method['name']}",
        gallery(condensed.data, exhibit.snapshots.before(_iterations(exhibit)), sets),
        facts,
        _told(settings),
        _told(asdict(condensed.recipe)),
        _provenance(exhibit),
        method.get("reference", ""),
        condense_command(condensed, exhibit.folder),
        evaluate_command(condensed, exhibit.folder),
        training_code(condensed, exhibit.folder),
        _iterations(exhibit),
    )


def _provenance(exhibit: Exhibit) -> dict[str, str]:
    record, result = exhibit.condensed.record, exhibit.result
    run: dict[str, str] = {}
    if result:
        run = {
            "command": result["command"],
            "commit": result["commit"] or "installed without one",
            "date": result["date"],
            "hardware": result["hardware"],
            "iterations": f"{result['iterations']:,}",
            "time": duration(result["seconds"]),
        }
        if memory := result.get("peak_memory"):
            run["peak memory"] = f"{memory / 2**20:,.0f} MiB"
    return run | {
        "precision": f"{record['precision']}, {'compiled' if record.get('compiled') else 'not compiled'}",
        "versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        "SHA-256 of the real data": record["data"]["fingerprint"],
    }


def _progress(exhibits: Sequence[Exhibit]) -> Iterator[Chart]:
    names = dict.fromkeys(name for one in exhibits for name in one.metrics if name != _ACCURACY)
    for name in names:
        lines = {one.title: one.metrics[name] for one in exhibits if one.metrics.get(name)}
        yield charts.progress(name.replace("_", " "), lines)


def _accuracy(exhibits: Sequence[Exhibit]) -> Iterator[Chart]:
    known = {(one.title, _tested(found)): found for one in exhibits for found in one.scores}
    shown = {found.score.accuracies for found in known.values()}  # a baseline may be a set of the page
    beside = {
        (_chosen(found), _tested(found)): found
        for one in exhibits
        for found in one.baselines
        if found.score.accuracies not in shown
    }
    how = {how for _, how in known | beside}
    common = how.pop() if len(how) == 1 else ""
    scores = [
        (key[0] if common else ", ".join(key), key in known, found.score)
        for key, found in (known | beside).items()
    ]
    if scores:
        yield charts.accuracies(scores, common)
    grown: dict[str, dict[int, Score]] = defaultdict(dict)
    for one in exhibits:
        at_snapshots = [found for found in one.evaluations if found.snapshot is not None]
        tested = {found.protocol for found in at_snapshots}
        ends = [found for found in one.scores if found.protocol in tested]
        for found in at_snapshots + ends:  # of the last iteration, the finished set counts
            done = _iterations(one) if found.snapshot is None else found.snapshot
            grown[_label(exhibits, one, found)][done] = found.score
    if grown:
        lines = {title: sorted(points.items(), key=lambda p: p[0]) for title, points in grown.items()}
        yield charts.growth(lines, "test accuracy")
    held_out = {one.title: one.metrics[_ACCURACY] for one in exhibits if one.metrics.get(_ACCURACY)}
    if held_out:
        alone = {title: [(k, Score((value,))) for k, value in line] for title, line in held_out.items()}
        yield charts.growth(alone, "accuracy on held-out training images")


def _classes(exhibits: Sequence[Exhibit]) -> Iterator[Chart]:
    known: dict[tuple[str, ...], dict[str, Evaluation]] = defaultdict(dict)
    for one in exhibits:
        for found in one.scores:
            if found.class_accuracies:
                known[one.condensed.class_names][_label(exhibits, one, found)] = found
    for names, several in known.items():
        yield charts.by_class(names, {title: found.class_accuracies for title, found in several.items()})
        for title, found in several.items():
            if found.confusion:
                yield charts.confusion(title, names, found.confusion)


def _comparison(exhibits: Sequence[Exhibit]) -> list[Comparison]:
    lines: list[Comparison] = []
    first: dict[str, Evaluation] = {}
    for one in exhibits:
        for found in one.scores:
            reference = first.setdefault(found.network, found)
            p = None if found is reference else welch(reference.score, found.score)
            lines.append(
                Comparison(
                    one.title,
                    found.method,
                    _images_per_class(one.condensed),
                    "hard" if one.condensed.probabilities is None else "soft",
                    found.network,
                    _protocol(found),
                    str(found.score),
                    "" if p is None else f"{p:.2g}",
                )
            )
    return lines


def _iterations(exhibit: Exhibit) -> int:
    if exhibit.result:
        return exhibit.result["iterations"]
    return max((line[-1][0] for line in exhibit.metrics.values()), default=0)


def _label(exhibits: Sequence[Exhibit], one: Exhibit, found: Evaluation) -> str:
    """What was trained; where there are several sets on which, and what if not all were tested alike."""
    if len(exhibits) == 1:
        return _tested(found)
    alike = len({other.protocol for exhibit in exhibits for other in exhibit.scores}) == 1
    return one.title if alike else f"{one.title}, {_tested(found)}"


def _tested(found: Evaluation) -> str:
    return f"{found.network}, {_protocol(found)}"


def _images_per_class(condensed: CondensedDataset) -> str:
    parts = condensed.decoder.parts
    return f"{condensed.ipc}" + (f" (decoded: {condensed.ipc * parts})" if parts > 1 else "")


def _protocol(found: Evaluation) -> str:
    augmented = "" if found.augmentation == "none" else f", {found.augmentation}"
    return f"{found.epochs:,} epochs{augmented}"


def _chosen(found: Evaluation) -> str:
    return "whole set" if found.method == "whole" else f"{found.method} real images"


def _told(settings: Mapping[str, Any]) -> dict[str, str]:
    """For people; without learned step sizes that there are none of."""
    return {
        name.replace("_", " "): value if isinstance(value, str) else _number(value)
        for name, value in settings.items()
        if value != ()
    }


def _number(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_number, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _read_metrics(path: Path) -> Mapping[str, charts.Series]:
    """By metric, its values after each iteration that has it."""
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    try:
        for line in read_bytes(path).splitlines():
            row = msgspec.json.decode(line, type=dict[str, Any])
            done = msgspec.convert(row.pop(_ITERATION, None), int) + 1
            for name, value in row.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    lines[name].append((done, float(value)))
    except FileNotFoundError:
        return {}
    except (msgspec.MsgspecError, ValueError) as error:
        raise Damaged(path, str(error), "move it away to continue without it") from None
    return dict(lines)
