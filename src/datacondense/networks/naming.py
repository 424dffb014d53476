"""Networks as text: names, settings, the user's own; and building them with checks."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from dataclasses import fields, replace
from functools import reduce
from typing import Any

import torch
from torch import nn

from datacondense.data.images import ImageShape
from datacondense.errors import UsageError, unknown_name
from datacondense.networks.base import Architecture, Network
from datacondense.networks.classic import MLP, VGG11, AlexNet, AlexNetDD, LeNet
from datacondense.networks.convnet import ConvNet
from datacondense.networks.resnet import ResNet18

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


def describe_network(network: Network) -> str:
    """The shortest text from which `parse_network` gives `network` again.

    Of ours, a name with the settings that differ from it; `module:qualname` of a function or class; the
    `repr` of any other callable, which cannot be read back.
    """
    if isinstance(network, Architecture):
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
    """A freshly initialised `network` for images of `image_shape`; a user's is checked on two blank ones.

    The check runs in eval mode, without gradients, and leaves modes and buffers as they were. Ours are built
    anew at every iteration and tested instead.

    Raises:
        UsageError: what is built is not an `nn.Module`, or does not map n c h w to n k; or `network` itself
            cannot be called with (image shape, classes).
    """
    if isinstance(network, Architecture):
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
    module: Any = network(image_shape, classes)
    if not isinstance(module, nn.Module):
        raise UsageError(f"network '{name}' built {type(module).__name__}; expected a torch.nn.Module")
    _check_output(module, name, image_shape, classes)
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
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's code raises
        raise UsageError(
            f"{kind} '{spec}': cannot import module '{module_name}': {type(error).__name__}: {error}"
        ) from error
    try:
        found: Any = reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        known = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise unknown_name(f"name in module {module_name}", attribute, known) from error
    if not callable(found):
        raise UsageError(f"{kind} '{spec}' is of type {type(found).__name__}; expected {expected}")
    return found


def _check_output(module: nn.Module, name: str, image_shape: ImageShape, classes: int) -> None:
    shape = "×".join(map(str, image_shape))
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            output = module.eval()(torch.zeros(2, *image_shape))
    except Exception as error:  # whatever the user's code raises
        raise UsageError(
            f"network '{name}' fails on two images of {shape}: {type(error).__name__}: {error}"
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != (2, classes):
        expected = f"(2, {classes}), a score per class"
        raise UsageError(f"network '{name}' gives {found} for two images of {shape}; expected {expected}")


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
