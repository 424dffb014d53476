"""The paper's tables as lists of cells, at the paper's scale or a stated reduction of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from datacondense.data.images import ImageShape
from datacondense.errors import unknown_name
from datacondense.experiments import reported
from datacondense.experiments.paper.cells import Cell, Sets
from datacondense.experiments.reported import Grid, Reported
from datacondense.methods import (
    DatasetDistillation,
    Forgetting,
    GradientMatching,
    Herding,
    KCenter,
    Method,
    RandomSelection,
    loops_for,
)
from datacondense.methods.parts.features import TrainedSelection
from datacondense.networks import MLP, VGG11, AlexNet, AlexNetDD, ConvNet, LeNet, ResNet18
from datacondense.networks.base import Architecture
from datacondense.training import Recipe

#: Of every dataset of the paper's tables.
CLASSES = 10
#: What a condensed set has to beat, in every table that compares with the paper.
BASELINES = (RandomSelection(), Herding())


@dataclass(frozen=True)
class Images:
    """What must be known of a dataset before it is read."""

    shape: ImageShape
    train: int
    test: int


DATA = {
    "mnist": Images((1, 28, 28), 60_000, 10_000),
    "fashion_mnist": Images((1, 28, 28), 60_000, 10_000),
    "svhn": Images((3, 32, 32), 73_257, 26_032),
    "cifar10": Images((3, 32, 32), 50_000, 10_000),
}


@dataclass(frozen=True)
class Scale:
    """How much of the paper's protocol is done; the defaults are all of it."""

    name: str
    description: str
    sets: int = 5
    trials: int = 20
    """Networks per set."""
    matchings: int | None = None
    """K · T of gradient matching; None: K = 1000."""
    distillation_iterations: int | None = None
    """None: as many as the authors of Dataset Distillation took."""
    feature_epochs: int | None = None
    """Over the whole set, of the network whose features select images; None: what the methods take."""
    whole_updates: int = 10_000
    """Of a network trained on the whole set."""
    max_updates: int | None = None
    """Of a network trained on a condensed set; None: all epochs of the recipe."""

    def method(self, method: Method, ipc: int) -> Method:
        """`method` with as many iterations as this scale has."""
        if isinstance(method, GradientMatching) and self.matchings:
            return replace(method, iterations=max(1, self.matchings // loops_for(ipc)[0]))
        if isinstance(method, DatasetDistillation) and self.distillation_iterations:
            return replace(method, iterations=self.distillation_iterations)
        if isinstance(method, TrainedSelection) and self.feature_epochs:
            return replace(method, feature_epochs=self.feature_epochs)
        return method

    def recipe(self, recipe: Recipe, images: int) -> Recipe:
        """`recipe` with as many epochs over a condensed set of so many images as this scale has."""
        if self.max_updates is None:
            return recipe
        per_epoch = math.ceil(images / recipe.batch_size)
        return replace(recipe, epochs=min(recipe.epochs, max(1, self.max_updates // per_epoch)))

    def protocol(self, method: Method) -> tuple[tuple[int, ...], int]:
        """Seeds of the sets, networks per set. Draws cost nothing: a single set becomes one per network."""
        if isinstance(method, RandomSelection) and self.sets == 1:
            return tuple(range(self.trials)), 1
        return tuple(range(self.sets)), self.trials


SCALES = {
    scale.name: scale
    for scale in (
        Scale("full", "the paper's protocol: K = 1000, 5 sets × 20 networks"),
        Scale(
            "quick",
            "K · T = 100 (K = 100 at 1 image per class, 10 at 10, 2 at 50), 1,000 iterations of Dataset "
            "Distillation, features after 4 epochs, 1,000 updates on a whole set; 1 set × 5 networks (random "
            "selection: 5 sets × 1), each at most 300 updates",
            sets=1,
            trials=5,
            matchings=100,
            distillation_iterations=1000,
            feature_epochs=4,
            whole_updates=1000,
            max_updates=300,
        ),
    )
}


@dataclass(frozen=True)
class Entry:
    """A place in a table."""

    row: str
    column: str
    cell: Cell
    reported: Reported | None
    """The paper's number, if it gives one."""


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    name: str
    title: str
    corner: str
    """What rows and columns are."""
    entries: Callable[[Scale], list[Entry]]
    costs: bool = False
    """Whether time and memory of condensing stand beside the accuracies."""
    alike: bool = False
    """Whether its numbers are compared with each other, so that only equally long runs may stand in it."""

    def select(self, scale: Scale, rows: str | None = None, columns: str | None = None) -> list[Entry]:
        """The entries whose row and column match the patterns, as `fnmatch` has them, separated by commas.

        Raises:
            UsageError: a pattern that matches nothing.
        """
        entries = self.entries(scale)
        row = self._matching("row", rows, [entry.row for entry in entries])
        column = self._matching("column", columns, [entry.column for entry in entries])
        return [entry for entry in entries if entry.row in row and entry.column in column]

    def _matching(self, kind: str, patterns: str | None, names: list[str]) -> set[str]:
        chosen = set(names) if patterns is None else set()
        for pattern in patterns.split(",") if patterns is not None else []:
            found = {name for name in names if fnmatchcase(name.lower(), pattern.strip().lower())}
            if not found:
                raise unknown_name(f"{kind} of {self.name}", pattern.strip(), set(names))
            chosen |= found
        return chosen


def cell(
    scale: Scale, data: str, method: Method, ipc: int, condensing: Architecture, trained: Architecture
) -> Cell:
    """Condense `data` with one network and train another, as the paper does it."""
    seeds, trials = scale.protocol(method)
    sets = Sets(data, scale.method(method, ipc), ipc, condensing)
    recipe = None if isinstance(method, DatasetDistillation) else evaluation_recipe(data, ipc, trained)
    if recipe:
        recipe = scale.recipe(recipe, ipc * method.decoder.parts * CLASSES)
    return Cell(data, sets, trained, recipe, seeds, trials, scale.name)


def whole(scale: Scale, data: str, trained: Architecture) -> Cell:
    """Train a network on all of `data`: the upper bound."""
    recipe = Recipe.of_whole_set(DATA[data].train, updates=scale.whole_updates)
    return Cell(data, None, trained, recipe, (0,), scale.trials, scale.name)


def evaluation_recipe(data: str, ipc: int, trained: Architecture) -> Recipe:
    """The paper's: by the dataset, but for ConvNets with BatchNorm and the AlexNet of `table3` at ipc 10."""
    augmented = Recipe(epochs=1000, augmentation="crop-scale-rotate")
    if isinstance(trained, ConvNet) and trained.norm == "batch":
        return replace(augmented, augmentation="crop-noise")
    if isinstance(trained, AlexNetDD) and ipc == 10:
        return augmented
    return Recipe.of_paper(data)


def _table1(scale: Scale) -> list[Entry]:
    methods = (RandomSelection(), Herding(), KCenter(), Forgetting(), GradientMatching())
    places: dict[tuple[str, str], Cell] = {}
    for data in DATA:
        for ipc in (1, 10, 50):
            row = f"{data}-ipc{ipc}"
            places |= {(row, m.name): cell(scale, data, m, ipc, ConvNet(), ConvNet()) for m in methods}
            if ipc == 1:
                places[row, "whole"] = whole(scale, data, ConvNet())
    return _entries(places, reported.TABLE1)


#: Of the cross-architecture table, by the paper's names: the network that condenses, the one that is trained.
SIX: dict[str, tuple[Architecture, Architecture]] = {
    "MLP": (MLP(), MLP()),
    "ConvNet": (ConvNet(), ConvNet()),
    "LeNet": (LeNet(), LeNet()),
    "AlexNet": (AlexNet(), AlexNet()),
    "VGG": (VGG11(norm="batch"), VGG11()),
    "ResNet": (ResNet18(norm="batch", downsampling="average"), ResNet18()),
}


def _table2(scale: Scale) -> list[Entry]:
    method = GradientMatching()
    places = {
        (row, column): cell(scale, "mnist", method, 1, condensing, trained)
        for row, (condensing, _) in SIX.items()
        for column, (_, trained) in SIX.items()
    }
    places |= {
        (selection.name, column): cell(scale, "mnist", selection, 1, ConvNet(), trained)
        for selection in BASELINES
        for column, (_, trained) in SIX.items()
    }
    return _entries(places, reported.TABLE2)


def _table3(scale: Scale) -> list[Entry]:
    places: dict[tuple[str, str], Cell] = {}
    distillations = {"mnist": DatasetDistillation(),
                     "cifar10": DatasetDistillation(iterations=19_600, step_size=0.001)}  # fmt: skip
    for data, network in (("mnist", LeNet()), ("cifar10", AlexNetDD())):
        for ipc in (1, 10):
            row = f"{data}-ipc{ipc}"
            for method in (*BASELINES, distillations[data], GradientMatching()):
                places[row, method.name] = cell(scale, data, method, ipc, network, network)
            if ipc == 1:
                places[row, "whole"] = whole(scale, data, network)
    return _entries(places, reported.TABLE3)


def _accuracy_by_ipc(scale: Scale) -> list[Entry]:
    places = {
        (f"{data}-{method.name}", f"ipc{ipc}"): cell(scale, data, method, ipc, ConvNet(), ConvNet())
        for data in DATA
        for method in (GradientMatching(), *BASELINES)
        for ipc in (1, 10, 20, 30, 40, 50)
    }
    return _entries(places, reported.ACCURACY_BY_IPC)


def _ablation_distance(scale: Scale) -> list[Entry]:
    methods = (GradientMatching(), GradientMatching(distance="mse"), GradientMatching(distance="cos"))
    places: dict[tuple[str, str], Cell] = {
        (method.distance, name): cell(scale, "mnist", method, 1, condensing, trained)
        for method in methods
        for name, (condensing, trained) in SIX.items()
    }
    return _entries(places, reported.ABLATION_DISTANCE)


def _ablation_initialisation(scale: Scale) -> list[Entry]:
    places: dict[tuple[str, str], Cell] = {
        (method.initialisation, f"ipc{ipc}"): cell(scale, "mnist", method, ipc, ConvNet(), ConvNet())
        for method in (GradientMatching(), GradientMatching(initialisation="real"))
        for ipc in (1, 10, 50)
    }
    return _entries(places, {})


def _grid_of(setting: str, networks: Iterable[ConvNet]) -> Table:
    """Every one of the networks condenses for every one."""
    names = {str(getattr(network.fitted((1, 28, 28)), setting)): network for network in networks}

    def entries(scale: Scale) -> list[Entry]:
        places = {
            (row, column): cell(scale, "mnist", GradientMatching(), 1, condensing, trained)
            for row, condensing in names.items()
            for column, trained in names.items()
        }
        return _entries(places, {})

    return Table(
        f"ablation-{setting}",
        f"ConvNets of different {setting}, MNIST, 1 image per class",
        "condensed with ↓ trained →",
        entries,
        alike=True,
    )


def _entries(places: dict[tuple[str, str], Cell], numbers: Grid) -> list[Entry]:
    return [Entry(*place, cell, numbers.get(place)) for place, cell in places.items()]


TABLES = {
    table.name: table
    for table in (
        Table("table1", "Coresets and gradient matching, ConvNet", "data", _table1),
        Table("table2", "Across architectures, MNIST, 1 image per class", "condensed with ↓ trained →",
              _table2),
        Table("table3", "Dataset Distillation and gradient matching, LeNet on MNIST and AlexNet on CIFAR-10",
              "data", _table3, costs=True),
        Table("accuracy-by-ipc", "Accuracy against images per class, ConvNet", "data and method",
              _accuracy_by_ipc),
        _grid_of("width", [ConvNet(width=width) for width in (32, 64, 128, 256)]),
        _grid_of("depth", [ConvNet(depth=depth) for depth in (1, 2, None, 4)]),
        _grid_of("activation", [ConvNet(activation=a) for a in ("sigmoid", "relu", "leaky-relu")]),
        _grid_of("norm", [ConvNet(norm=n) for n in ("none", "batch", "layer", "instance", "group")]),
        _grid_of("pooling", [ConvNet(pooling=p) for p in ("none", "max", "average")]),
        Table("ablation-distance", "Distances between gradients, MNIST, 1 image per class, one architecture "
              "condenses and is trained", "distance", _ablation_distance, alike=True),
        Table("ablation-initialisation", "Synthetic images at first noise or real ones, ConvNet, MNIST",
              "initialisation", _ablation_initialisation, alike=True),
    )
}  # fmt: skip


def reported_numbers(cell: Cell) -> dict[str, Reported | None]:
    """By table, what the paper says of `cell` in each one that has it."""
    return {
        table.name: entry.reported
        for table in TABLES.values()
        for entry in table.entries(SCALES[cell.scale])
        if entry.cell == cell
    }
