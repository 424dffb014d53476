"""What a reader takes away: the command that makes a set again, and the code that trains on it."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, fields
from pathlib import Path

from datacondense.artifact.condensed import CondensedDataset
from datacondense.methods import METHODS, GradientMatching
from datacondense.networks import ConvNet, describe_network
from datacondense.sets import named
from datacondense.settings import restored


def condense_command(condensed: CondensedDataset, folder: Path) -> str | None:
    """The command that makes the same images on a machine like that one; None where none can: the data came
    from memory or were split by another seed, the method is unknown here, or the labels were given later.

    `folder` is where it writes.
    """
    record, source = condensed.record, condensed.source
    name = record["method"]["name"]
    if source is None or source.split_seed not in (None, record["seed"]):
        return None
    if name not in METHODS or "relabelled" in record:
        return None
    try:
        method = restored(METHODS[name], record["method"]["settings"])
    except ValueError:  # of another version
        return None
    words = ["datacondense", "condense", source.data, "--ipc", str(condensed.ipc)]
    words += ["--method", name] * (name != GradientMatching.name)
    for field in fields(method):
        value, usual = getattr(method, field.name), field.default
        if usual is MISSING or value != usual:
            flag = f"--{field.name.replace('_', '-')}"
            words += [flag] if value is True else [flag, str(value)]
    usual_network = describe_network(method.default_network)
    words += ["--network", record["network"]] * (record["network"] != usual_network)
    words += ["--validation", str(record["validation"])] if record.get("validation") else []
    words += ["--seed", str(record["seed"])] * (record["seed"] != 0)
    for name in ("image_column", "label_column", "resize"):
        if value := getattr(source, name):
            words += [f"--{name.replace('_', '-')}", value]
    words += ["--precision", record["precision"], "--compile", "on" if record.get("compiled") else "off"]
    return shlex.join([*words, "--out", str(folder)])


def evaluate_command(condensed: CondensedDataset, folder: Path) -> str:
    """The command that tests it: on the paper's ConvNet, unless another network was named for it."""
    words = ["datacondense", "evaluate", str(folder)]
    network, method = condensed.record["network"], METHODS.get(condensed.record["method"]["name"])
    usual = {describe_network(known) for known in (ConvNet(), method and method().default_network) if known}
    words += ["--networks", network] * (network not in usual)
    return shlex.join([*words, "--json", f"{folder}.json"])


def training_code(condensed: CondensedDataset, folder: Path) -> str:
    """Python that trains a network of one's own on the set by its recipe, and one that measures it."""
    test = (
        "score = dc.evaluate(condensed, trials=20)    # on the real test images, read again"
        if condensed.source
        else "score = dc.evaluate(condensed, test, trials=20)    # `test`: your test images"
    )
    load = "load_condensed" if named(folder) else "CondensedDataset.load"
    return _CODE.format(load=f"dc.{load}({str(folder)!r})", test=test)


_CODE = """\
import torch
import datacondense as dc

condensed = {load}
data, recipe = condensed.training_set(), condensed.recipe

# A network of your own: any torch.nn.Module that gives a logit for each class.
network = dc.ConvNet()(data.image_shape, data.classes)
learner = dc.Learner.of(network)
learner.train(data.normalised(), data.targets, recipe, torch.Generator().manual_seed(0))
logits = learner.predict(condensed.normalise(data.images))    # or other images, uint8 or in [0, 1]

# Or your own training loop, over normalised images and labels (or class probabilities):
batches = torch.utils.data.DataLoader(condensed.to_torch(), batch_size=recipe.batch_size, shuffle=True)

# How good is it? Fresh networks, trained by its recipe:
{test}
print(score)
"""
