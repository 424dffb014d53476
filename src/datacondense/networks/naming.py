"""Networks as text: names, settings, the user's own; and building them with checks."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from functools import cache, reduce
from typing import Any

import torch
from torch import nn

from datacondense.data.images import ImageShape
from datacondense.errors import UsageError, unknown_name
from datacondense.machine.memory import total_memory
from datacondense.networks.base import Architecture, Network
from datacondense.networks.classic import MLP, VGG11, AlexNet, AlexNetDD, LeNet
from datacondense.networks.convnet import ConvNet
from datacondense.networks.resnet import ResNet18
from datacondense.text import shown_shape

#: The networks by their names on the command line, with the paper's settings.
NETWORKS: dict[str, Architecture] = {
    "convnet": ConvNet(),
    "mlp": MLP(),
    "lenet": LeNet(),
    "alexnet": AlexNet(),
    "alexnet-dd": AlexNetDD(),
    "vgg11": VGG11(),
    "vgg11-bn": VGG11(norm="batch"),
    "resnet18": ResNet18(),
    "resnet18-bn": ResNet18(norm="batch"),
    "resnet18-bn-ap": ResNet18(norm="batch", downsampling="average"),
}


def parse_network(spec: str) -> Network:
    """The network that `spec` names.

    One of `NETWORKS` (`convnet`), one with settings (`convnet(depth=2,norm=batch)`), or the user's own
    function or class `package.module:name`, which gives an `nn.Module` for (image shape, classes). Importing
    it runs the module's code and puts the current directory on the import path.

    Raises:
        UsageError: an unknown name, setting or value; a module that cannot be imported, or lacks that name;
            or what is found there cannot be called.
    """
    spec = spec.strip()
    if ":" in spec.partition("(")[0]:
        return import_callable(  # type: ignore[no-any-return]
            spec, "network", "a function or class that builds an nn.Module from (image_shape, classes)"
        )
    match = re.fullmatch(r"([^()\s]*)\s*(?:\(([^()]*)\))?", spec)
    if match is None:
        raise UsageError(f"cannot read network '{spec}'; expected a form like convnet(depth=2,norm=batch)")
    name, settings = match.groups()
    if name not in NETWORKS:
        raise unknown_name("network", name, NETWORKS)
    return replace(NETWORKS[name], **_parse_settings(name, settings or ""))


def as_network(network: Network | str | None) -> Network:
    """The network, or the one that a text names; the paper's ConvNet by default.

    Raises:
        UsageError: see `parse_network`; or something that cannot be called.
    """
    if network is None:
        return ConvNet()
    if isinstance(network, str):
        return parse_network(network)
    given: object = network  # a class is callable, too, but not with images and classes
    if isinstance(given, type) and issubclass(given, Architecture):
        name = given.__name__
        raise UsageError(f"found the class {name} as network; expected one with its settings: {name}()")
    if not callable(network):
        raise UsageError(
            f"found {type(network).__name__} as network; expected a name such as 'convnet', one of ours such "
            "as ConvNet(), or a function or class that builds an nn.Module from (image_shape, classes)"
        )
    return network


def known_network(spec: str) -> Architecture | None:
    """The network that `spec` names, where it is one of `NETWORKS`: reading it runs no code of the user's."""
    with suppress(UsageError):
        network = parse_network(spec) if ":" not in spec else None
        return network if isinstance(network, Architecture) else None
    return None


def describe_network(network: Network, image_shape: ImageShape | None = None) -> str:
    """The shortest text from which `parse_network` gives `network` again.

    Of ours, a name with the settings that differ from it; `module:qualname` of a function or class; the
    `repr` of any other callable, which cannot be read back. With `image_shape`, settings that fit themselves
    to the images are given: that is for people; in records, equal settings are equal text.
    """
    if isinstance(network, Architecture):
        network = network.fitted(image_shape) if image_shape else network
        specs = [
            _spec(name, known, network) for name, known in NETWORKS.items() if type(known) is type(network)
        ]
        if specs:  # none: a subclass by the user
            return min(specs, key=len)
    if hasattr(network, "__qualname__"):
        return f"{network.__module__}:{network.__qualname__}"
    return repr(network)


def split_networks(spec: str) -> list[str]:
    """The parts of a list of networks: split at commas, but not those between parentheses."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", spec)]


def build_network(network: Network, image_shape: ImageShape, classes: int) -> nn.Module:
    """A freshly initialised `network` for images of `image_shape`; a user's is checked on two of noise.

    The check runs in eval mode, without gradients, and leaves modes and buffers as they were. Ours are built
    anew at every iteration and tested instead.

    Raises:
        UsageError: more parameters than this machine could train; what is built is not an `nn.Module`, has
            nothing to train, or does not map n c h w to finite numbers n k; `network` itself cannot be called
            with (image shape, classes), or its code raises something.
    """
    if isinstance(network, Architecture):
        _require_memory(network, image_shape, classes)
        return network(image_shape, classes)
    if isinstance(network, nn.Module):
        raise UsageError(
            f"found one {type(network).__name__} as network; expected a function or class that builds "
            "a fresh one from (image_shape, classes)"
        )
    name = describe_network(network)
    try:
        inspect.signature(network).bind(image_shape, classes)
    except (TypeError, ValueError) as error:
        raise UsageError(f"network '{name}' cannot be called with (image_shape, classes): {error}") from error
    with _errors_of_the_user(f"network '{name}' cannot be built from ({image_shape}, {classes})"):
        module: Any = network(image_shape, classes)
    if not isinstance(module, nn.Module):
        raise UsageError(f"network '{name}' built {type(module).__name__}; expected a torch.nn.Module")
    _check_output(module, name, image_shape, classes)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UsageError(f"network '{name}' has no parameters to train; expected some that require gradients")
    return module


def import_callable(spec: str, kind: str, expected: str) -> Any:
    """What `package.module:name` names, for a `kind` of thing that should be as `expected`.

    Importing it runs the module's code and puts the current directory on the import path.

    Raises:
        UsageError: a module that cannot be imported, or lacks that name; or what is found cannot be called.
    """
    module_name, _, attribute = spec.partition(":")
    if os.getcwd() not in sys.path:  # an installed command has its own folder there instead
        sys.path.insert(0, os.getcwd())
    with _errors_of_the_user(f"{kind} '{spec}': cannot import module '{module_name}'"):
        module = importlib.import_module(module_name)
    try:
        found: Any = reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        known = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise unknown_name(f"name in module {module_name}", attribute, known) from error
    if not callable(found):
        raise UsageError(f"{kind} '{spec}' is of type {type(found).__name__}; expected {expected}")
    return found


@contextmanager
def _errors_of_the_user(what: str) -> Iterator[None]:
    """Whatever the user's code raises, `sys.exit` included, is a `UsageError` that begins with `what`."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UsageError(f"{what}: {type(error).__name__}: {error}") from error


@cache
def _require_memory(network: Architecture, image_shape: ImageShape, classes: int) -> None:
    """Raise `UsageError` where weights, gradients and momentum could not be held: before they are drawn."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            parameters = sum(p.numel() for p in network(image_shape, classes).parameters())
    except (RuntimeError, OverflowError, TypeError):  # PyTorch cannot even count them
        parameters = sys.maxsize
    needed, there = 3 * 4 * parameters, total_memory()
    if needed > there:
        raise UsageError(
            f"network '{describe_network(network)}' would need {needed / 2**30:,.0f} GiB for its weights, "
            f"their gradients and momentum; this machine has {there / 2**30:,.0f} GiB; choose a smaller one"
        )


def _check_output(module: nn.Module, name: str, image_shape: ImageShape, classes: int) -> None:
    shape = shown_shape(image_shape)
    modes = {part: part.training for part in module.modules()}
    noise = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    try:
        with _errors_of_the_user(f"network '{name}' fails on two images of {shape}"), torch.no_grad():
            output = module.eval()(noise)
    finally:
        for part, training in modes.items():
            part.training = training
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != (2, classes):
        expected = f"(2, {classes}), a score per class"
        raise UsageError(f"network '{name}' gives {found} for two images of {shape}; expected {expected}")
    if not (output.is_floating_point() and output.isfinite().all()):
        found = "NaN or infinite scores" if output.is_floating_point() else f"{output.dtype} scores"
        raise UsageError(f"network '{name}' gives {found} for two images of {shape}; expected finite floats")


def _parse_settings(name: str, text: str) -> dict[str, int | str]:
    known = [field.name for field in fields(NETWORKS[name])]
    settings: dict[str, int | str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        setting, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UsageError(f"cannot read '{part}' in the settings of {name}; expected setting=value")
        if not known:
            raise UsageError(f"network '{name}' has no settings; found '{part}'")
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)
        if setting in settings:
            raise UsageError(f"setting '{setting}' of {name} is given twice; give it once")
        # The architecture checks type and range.
        settings[setting] = int(value) if re.fullmatch(r"-?[0-9]+", value) else value
    return settings


def _spec(name: str, known: Architecture, network: Architecture) -> str:
    """`network` as `name`, of settings `known`, with the settings that differ."""
    values = ((field.name, getattr(network, field.name)) for field in fields(known))
    changed = [f"{setting}={value}" for setting, value in values if value != getattr(known, setting)]
    return f"{name}({','.join(changed)})" if changed else name
