"""Which networks a search looks at: the paper's 720 ConvNets, a file of settings, or the user's function."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

import torch

from datacondense.data.images import ImageShape
from datacondense.errors import UsageError, unknown_name
from datacondense.networks import Architecture, ConvNet, Network, build_network, import_callable
from datacondense.networks.base import Activation, Norm, Pooling
from datacondense.randomness import global_stream, stream
from datacondense.reading import Damaged, read_bytes, read_json

#: Asks an Optuna trial for values and gives the network that they mean.
Suggest = Callable[[Any], Network]
#: More than any search could train; a function that suggests so many is taken for a mistake.
LARGEST = 100_000


@dataclass(frozen=True)
class Grid:
    """Every combination of the `choices` for ConvNet's settings; those not named keep ConvNet's defaults.

    It is a function of an Optuna trial, as the user's own spaces are.

    Raises:
        UsageError: no setting, an unknown one, or one without choices, with a repeated or an invalid one.
    """

    choices: Mapping[str, Sequence[int | str]]

    def __post_init__(self) -> None:
        known = [field.name for field in fields(ConvNet)]
        if not self.choices:
            raise UsageError(f"the space is empty; expected choices for some of {', '.join(known)}")
        for name, values in self.choices.items():
            if name not in known:
                raise unknown_name("setting of convnet", name, known)
            if not isinstance(values, list | tuple) or not values or not set(map(type, values)) <= {int, str}:
                raise UsageError(
                    f"the choices for {name} are {values!r}; expected a list of whole numbers or of words"
                )
            for value in values:
                ConvNet(**{name: value})  # which checks it
            if len(set(values)) < len(values):
                raise UsageError(f"the choices for {name} name one twice: {list(values)}")

    def __call__(self, trial: Any) -> Network:
        chosen = {name: trial.suggest_categorical(name, list(v)) for name, v in self.choices.items()}
        return ConvNet(**chosen)


#: The paper's search space: 4 × 4 × 5 × 3 × 3 = 720 networks.
PAPER_SPACE = Grid(
    {
        "depth": (1, 2, 3, 4),
        "width": (32, 64, 128, 256),
        "norm": get_args(Norm),
        "activation": get_args(Activation),
        "pooling": get_args(Pooling),
    }
)


@dataclass(frozen=True)
class Configuration:
    """One point of a space."""

    values: dict[str, Any]
    """The values that the trial gave."""
    network: Network | None
    problem: str | None
    """Why it cannot be built for these images; None where it can."""

    @property
    def label(self) -> str:
        """The values as text: what a configuration is called in studies and results."""
        return label_of(self.values)


def label_of(values: Mapping[str, Any]) -> str:
    """depth=2 width=32 …"""
    return " ".join(f"{name}={value}" for name, value in values.items())


def read_space(spec: str) -> Suggest:
    """The space in a TOML or JSON file, or the user's function `package.module:name` of an Optuna trial.

    Raises:
        UsageError: no such file or function; not a table of lists; what `Grid` refuses.
    """
    path = Path(spec)
    if ":" in spec and not path.exists():
        found: Suggest = import_callable(spec, "space", "a function from an Optuna trial to a network")
        return found
    try:
        if path.suffix == ".json":
            return Grid(read_json(path, dict[str, Any]))
        choices = tomllib.loads(read_bytes(path).decode())
    except FileNotFoundError:
        raise UsageError(f"space {spec} cannot be read: there is no such file") from None
    except Damaged as error:
        raise UsageError(f"space {spec} does not hold lists by ConvNet's settings: {error.reason}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"space {spec} is not TOML (JSON is named *.json): {error}") from None
    return Grid(choices)


def configurations(suggest: Suggest, image_shape: ImageShape, classes: int) -> tuple[Configuration, ...]:
    """All points of a space, in order, each built once to see whether it can be.

    Raises:
        UsageError: the function fails, suggests from a continuous range, has no points or too many.
    """
    found = []
    for values, network, problem in _points(suggest):
        if network is not None:
            problem = _problem(network, image_shape, classes)
        found.append(Configuration(values, None if problem else network, problem))
        if len(found) > LARGEST:
            raise UsageError(f"the space has more than {LARGEST:,} networks; give fewer choices")
    return tuple(found)


def spread(points: Sequence[Configuration], seed: int) -> list[Configuration]:
    """`points` in an order drawn from `seed` whose every beginning has each value about equally often."""
    order = torch.randperm(len(points), generator=stream(seed, "search order")).tolist()
    left = {index: [(name, str(value)) for name, value in points[index].values.items()] for index in order}
    seen: Counter[tuple[str, str]] = Counter()
    result = []
    while left:
        best = min(left, key=lambda index: sum(map(seen.__getitem__, left[index])))
        seen.update(left.pop(best))
        result.append(points[best])
    return result


def excluded(points: Sequence[Configuration]) -> dict[str, int]:
    """How many networks cannot be built, by reason."""
    return dict(Counter(point.problem for point in points if point.problem))


def _problem(network: Network, image_shape: ImageShape, classes: int) -> str | None:
    """Why `network` cannot be built; ours without memory for weights, as their checks need none."""
    place = torch.device("meta" if isinstance(network, Architecture) else "cpu")
    try:
        with global_stream(0, "search check"), place:
            build_network(network, image_shape, classes)
    except UsageError as error:
        return str(error)
    return None


def _points(suggest: Suggest) -> Iterator[tuple[dict[str, Any], Network | None, str | None]]:
    path: list[int] | None = []
    while path is not None:
        trial, network, problem = _Scripted(path), None, None
        try:
            network = suggest(trial)
        except UsageError as error:
            if not trial.values:
                raise
            problem = str(error)
        except Exception as error:  # whatever the user's code raises
            raise UsageError(f"the space's function failed: {type(error).__name__}: {error}") from error
        yield trial.values, network, problem
        path = trial.next_path()


@dataclass
class _Scripted:
    """Stands in for an Optuna trial: takes the choices of `path`, then the first ones."""

    path: list[int]
    values: dict[str, Any] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name not in self.values:
            if len(self.counts) == len(self.path):
                self.path.append(0)
            self.values[name] = choices[self.path[len(self.counts)]]
            self.counts.append(len(choices))
        return self.values[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self.suggest_categorical(name, range(low, high + 1, step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is None:
            raise TypeError(f"{name} is suggested from a continuous range; give suggest_float a step")
        count = int((high - low) / step + 1e-8) + 1
        return float(self.suggest_categorical(name, [low + i * step for i in range(count)]))

    def next_path(self) -> list[int] | None:
        """The path to the next point, depth first; None after the last."""
        path = self.path[: len(self.counts)]
        while path and path[-1] + 1 == self.counts[len(path) - 1]:
            path.pop()
        return [*path[:-1], path[-1] + 1] if path else None
