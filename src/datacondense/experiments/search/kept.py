"""Results of searches, read again for pages and plots: the description that a file is checked against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from datacondense.reading import Amount, Fraction, read_json

_Correlated = Annotated[float, Meta(ge=-1, le=1)] | None


class _Correlation(TypedDict):
    n: int
    spearman: _Correlated
    kendall: _Correlated


class _Parts(TypedDict):
    sample: _Correlation
    top: _Correlation


class _Network(TypedDict):
    label: str
    validation: Fraction
    test: Fraction | None


class _Found(TypedDict):
    label: str
    test: Fraction


class _Recipe(TypedDict):
    batch_size: int


#: Of a name that a class cannot have.
_Made = TypedDict("_Made", {"made by": dict[str, Any] | None})


class _Stage(_Made):
    images: int
    steps: int
    recipe: _Recipe
    networks: int
    seconds: Amount
    found: _Found | None
    ranking: list[_Network]


class _Proxy(_Stage):
    correlation: _Parts


class _Data(TypedDict):
    name: str
    jpeg: bool


class _Settings(TypedDict):
    sampler: str
    epochs: int
    top: int


class _Space(TypedDict):
    networks: int


class _Images(TypedDict):
    validation: int
    test: int


class _Run(TypedDict):
    hardware: str
    seed: int


class SearchFile(TypedDict):
    """The parts of a result of `search`."""

    data: _Data
    settings: _Settings
    space: _Space
    images: _Images
    sample: list[str]
    proxies: Annotated[dict[str, _Proxy], Meta(min_length=1)]
    whole: _Stage
    run: _Run


def read_searches(results: Path) -> dict[str, Mapping[str, Any]]:
    """Those in the files `results`/search/NAME.json, by name.

    Raises:
        Damaged: a file holds something else.
    """
    return {path.stem: read_json(path, SearchFile) for path in sorted((results / "search").glob("*.json"))}
