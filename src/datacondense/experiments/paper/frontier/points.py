"""What is measured: curves, each one run that is extended from budget to budget, and the points on them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import msgspec

from datacondense.errors import UsageError, unknown_name
from datacondense.evaluation.protocols import PROTOCOLS, ProtocolName
from datacondense.experiments.paper.cells import Cell, Sets, named
from datacondense.methods import METHODS, Method, as_method
from datacondense.networks import ConvNet, Network, describe_network


@dataclass(frozen=True)
class Curve:
    """One run of a method, or one selection, which is a point of zero time."""

    sets: Sets
    seed: int

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.sets.id(self.seed)

    @property
    def takes_time(self) -> bool:
        """Whether its method learns, so that there is more than one point."""
        return self.sets.method.steps > 0


@dataclass(frozen=True)
class Point:
    """Networks trained on what a curve has after so many minutes."""

    curve: Curve
    minutes: float | None
    """None for a selection."""
    protocol: ProtocolName
    trials: int
    """Networks."""

    @cached_property
    def cell(self) -> Cell:
        """The evaluation of it."""
        sets, recipe = self.curve.sets, PROTOCOLS[self.protocol].recipe(self.curve.sets.data)
        return Cell(sets.data, sets, ConvNet(), recipe, (self.curve.seed,), self.trials, "frontier")

    @property
    def title(self) -> str:
        """For people."""
        sets = self.curve.sets
        budget = "" if self.minutes is None else f", {self.minutes:g} min"
        curve = curve_title(sets.method, describe_network(sets.network))
        return f"{sets.data}, {sets.ipc} per class, {curve}{budget}"

    def configuration(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return self.cell.configuration() | {"minutes": self.minutes, "protocol": self.protocol}

    @property
    def id(self) -> str:
        """A readable name that ends in a hash of the configuration; the stem of the result's file."""
        sets, budget = self.curve.sets, "selection" if self.minutes is None else f"{self.minutes:g}-minutes"
        about = (
            sets.data,
            f"ipc{sets.ipc}",
            sets.method.name,
            budget,
            self.protocol,
            f"seed{self.curve.seed}",
        )
        return named("-".join(about), self.configuration())


def points_of(
    data: Iterable[str],
    ipcs: Iterable[int],
    methods: Iterable[Method],
    minutes: Iterable[float],
    protocol: ProtocolName,
    trials: int,
    seed: int,
    network: Network | None = None,
) -> list[Point]:
    """All of them: curve after curve, and along each by time.

    Args:
        network: to condense with; by default the usual one of each method.

    Raises:
        UsageError: a method that cannot be stopped by the clock.
    """
    methods, ipcs, budgets = list(methods), list(ipcs), sorted(set(minutes))
    for method in methods:
        if method.steps and not method.open_ended:
            raise UsageError(
                f"{method.name} takes steps that depend on their number, so no budget of minutes can end it; "
                "leave it out of --methods"
            )
    curves = [
        Curve(Sets(name, method, ipc, network or method.default_network), seed)
        for name in data
        for ipc in ipcs
        for method in methods
    ]
    return [
        Point(curve, budget, protocol, trials)
        for curve in curves
        for budget in (budgets if curve.takes_time else [None])
    ]


def parse_method(spec: str) -> Method:
    """The method that `spec` names, with settings where it gives some: `distribution-matching(siamese=none)`.

    Raises:
        UsageError: an unknown name, setting or value.
    """
    match = re.fullmatch(r"([^()\s]*)(?:\(([^()]*)\))?", spec.strip())
    if match is None:
        raise UsageError(f"cannot read method '{spec}'; expected a form like herding(feature_epochs=4)")
    name, listed = match.groups()
    default, given = as_method(name), {}
    for part in listed.split(",") if listed else ():
        setting, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UsageError(f"cannot read '{part.strip()}' of method '{spec}'; expected setting=value")
        if setting not in (known := [field.name for field in fields(default)]):
            raise unknown_name(f"setting of {name}", setting, known)
        given[setting] = value
    try:
        return msgspec.convert(asdict(default) | given, METHODS[name], strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"method '{spec}': {error}") from None


def described(method: Method) -> str:
    """The shortest text from which `parse_method` gives it again, but for its iterations."""
    default = asdict(METHODS[method.name]()) if method.name in METHODS else {}
    changed = [
        f"{name}={value}"
        for name, value in asdict(method).items()
        if name != "iterations" and value != default.get(name)
    ]
    return f"{method.name}({','.join(changed)})" if changed else method.name


def curve_title(method: Method, network: str) -> str:
    """What a curve is called: its method, and the condensing network where it is not the usual one."""
    usual = describe_network(method.default_network)
    return described(method) + (f" on {network}" if network != usual else "")
