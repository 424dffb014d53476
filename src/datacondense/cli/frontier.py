"""The flags of `datacondense paper frontier`, and the points that they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar, get_args

from tyro.conf import arg

from datacondense.errors import COUNT, Range, UsageError, unknown_name
from datacondense.evaluation.protocols import ProtocolName
from datacondense.experiments.paper.frontier.page import SHOWN
from datacondense.experiments.paper.frontier.points import Point, parse_method, points_of
from datacondense.experiments.paper.tables import DATA
from datacondense.methods import METHODS
from datacondense.networks import parse_network, split_networks

N = TypeVar("N", int, float)

#: What is compared unless methods are named: selections, and all that learn and can be stopped by the clock.
_COMPARED = (
    *("random", "herding", "k-center", "k-means", "mosaic"),
    *(name for name, method in METHODS.items() if method.open_ended),
)


@dataclass(frozen=True)
class FrontierFlags:
    """Of `paper frontier` alone."""

    data: Annotated[str, arg(metavar="DATA,…", help=f"Of {', '.join(DATA)}.")] = "mnist,fashion_mnist,cifar10"
    ipc: Annotated[str, arg(metavar="N,…", help="Images per class.")] = "1,10,50"
    minutes: Annotated[
        str, arg(metavar="M,…", help="Minutes of condensing; a run continues from each to the next.")
    ] = "1,3,10,30,100"
    methods: Annotated[
        str, arg(metavar="METHOD,…", help="With settings, if need be: 'herding(feature_epochs=4)'.")
    ] = ",".join(_COMPARED)
    network: Annotated[
        str | None,
        arg(metavar="NETWORK", help="The condensing network; unless given, the usual one of each method."),
    ] = None
    protocol: Annotated[
        str, arg(metavar="|".join(SHOWN), help="How networks are trained on the sets (docs/comparing.md).")
    ] = "paper"
    trials: Annotated[int, arg(help="Networks trained on each set.")] = 5
    seed: Annotated[int, arg(help="Of the sets and the networks.")] = 0

    def points(self) -> list[Point]:
        """All that are asked for.

        Raises:
            UsageError: a name or a number that cannot be right.
        """
        if unknown := [name for name in self.data.split(",") if name not in DATA]:
            raise unknown_name("dataset of paper frontier", unknown[0], DATA)
        if self.protocol not in SHOWN:
            raise unknown_name("protocol of paper frontier", self.protocol, SHOWN)
        COUNT.require("--trials", self.trials)
        (protocol,) = (name for name in get_args(ProtocolName) if name == self.protocol)
        return points_of(
            self.data.split(","),
            _numbers("--ipc", self.ipc, int, COUNT),
            [parse_method(spec) for spec in split_networks(self.methods)],
            _numbers("--minutes", self.minutes, float, Range(0, 100_000, above=True)),
            protocol,
            self.trials,
            self.seed,
            parse_network(self.network) if self.network else None,
        )


def _numbers(flag: str, listed: str, kind: type[N], allowed: Range) -> list[N]:
    """The numbers of a list, separated by commas."""
    found: list[N] = []
    for text in listed.split(","):
        try:
            number = kind(text)
        except ValueError:
            raise UsageError(f"{flag} takes numbers separated by commas; found {text!r}") from None
        allowed.require(flag, number)
        found.append(number)
    return found
