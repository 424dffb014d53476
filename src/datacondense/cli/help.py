"""Help that is read by people, and at once: words instead of `None`, and no wait for PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, NoneType
from typing import Annotated, Any, get_args

from tyro.conf import arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

#: Of a switch, and of a flag whose help says in words what happens without it: no "(default: …)".
UNSAID = arg(help_behavior_hint="")


@contextmanager
def plain_words() -> Iterator[None]:
    """Inside the block tyro shows `INT` for `int | None`, and of a default that is None or False nothing."""
    registry, inside = ConstructorRegistry(), set[type]()

    @registry.primitive_rule
    def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        kinds = [kind for kind in get_args(info.type) if kind is not NoneType]
        if len(kinds) != 1 or NoneType not in get_args(info.type):
            return None
        spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
        assert isinstance(spec, PrimitiveConstructorSpec)
        return replace(
            spec,
            is_instance=lambda value: value is None or spec.is_instance(value),
            str_from_instance=lambda value: [] if value is None else spec.str_from_instance(value),
        )

    @registry.struct_rule
    def settings(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not is_dataclass(info.type) or info.type in inside:
            return None
        inside.add(info.type)  # now tyro's own rule answers
        spec = ConstructorRegistry.get_struct_spec(info)
        inside.remove(info.type)
        assert isinstance(spec, StructConstructorSpec)
        return replace(spec, fields=tuple(map(without_hint, spec.fields)))

    def without_hint(field: StructFieldSpec) -> StructFieldSpec:
        if field.default not in (None, False):
            return field
        kind: Any = Annotated[field.type, UNSAID]
        return replace(field, type=kind)

    with registry:
        yield


@contextmanager
def without_torch() -> Iterator[None]:
    """Inside the block `import torch`, which takes seconds, gives stand-ins of which help asks nothing.

    What is imported meanwhile cannot compute: this is for a process that prints help and ends.
    """
    finder = _StandIns()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _StandIns(MetaPathFinder, Loader):
    """Finds `torch` and all modules below it, whatever they are called."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] == "torch" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__getattr__ = _StandIn.public  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


class _StandIn(type):
    """A class that serves as whatever a module of ours takes from PyTorch: a base, a decorator, a type."""

    @staticmethod
    def public(name: str) -> _StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(name, (), {})

    def __getattr__(cls, name: str) -> _StandIn:
        return _StandIn.public(name)

    def __call__(cls, *arguments: object, **options: object) -> Any:
        return lambda decorated: decorated
