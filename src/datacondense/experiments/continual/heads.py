"""Output layers that tasks share or have each, and the loss that keeps them apart and remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from datacondense.data import DataSplits, ImageDataset

#: For one task: which of the network's outputs stand for its classes, in their order.
Outputs = tuple[int, ...]


def output_layers(class_names: Sequence[tuple[str, ...]]) -> list[Outputs]:
    """For each task's class names: which of the network's outputs stand for its classes, in their order.

    Tasks with the same names, in any order, share their outputs; others have outputs of their own, which is
    an output layer each, since the rows of a linear layer are independent.
    """
    layers: dict[frozenset[str], dict[str, int]] = {}
    for names in class_names:
        first = sum(map(len, layers.values()))
        layers.setdefault(frozenset(names), {name: first + i for i, name in enumerate(names)})
    return [tuple(layers[frozenset(names)][name] for name in names) for names in class_names]


def describe_output_layers(tasks: Mapping[str, DataSplits]) -> str:
    """One line: which tasks share an output layer."""
    groups: dict[frozenset[str], list[str]] = {}
    for name, task in tasks.items():
        groups.setdefault(frozenset(task.train.class_names), []).append(name)
    shown = [f"{' + '.join(names)} ({len(classes)} classes)" for classes, names in groups.items()]
    how = "shared by all tasks" if len(groups) == 1 else "the task of a test image is known"
    return f"output layers: {', '.join(shown)}; {how}"


@dataclass(frozen=True)
class Examples:
    """Images of several tasks to learn from together."""

    images: Float[Tensor, "n c h w"]
    """Normalised, each task by its own mean and std."""
    targets: Int[Tensor, " n"] | Float[Tensor, "n k"]
    """The output of each image's class; where some images have class probabilities, those of all outputs."""
    allowed: Bool[Tensor, "n k"]
    """The outputs of each image's task."""

    @classmethod
    def of(cls, parts: Mapping[int, ImageDataset], outputs: Sequence[Outputs]) -> Examples:
        """The images of `parts`, task → its images; `outputs` are those of all tasks."""
        allowed = torch.zeros(len(outputs), 1 + max(map(max, outputs)), dtype=torch.bool)
        for row, own in zip(allowed, outputs, strict=True):
            row[list(own)] = True
        task = torch.cat([torch.full((len(part),), i) for i, part in parts.items()])
        targets = torch.cat([torch.tensor(outputs[i])[part.labels] for i, part in parts.items()])
        if any(part.probabilities is not None for part in parts.values()):
            targets = F.one_hot(targets, allowed.shape[1]).float()
            for i, part in parts.items():
                if part.probabilities is not None:
                    spread = torch.zeros(len(part), allowed.shape[1])
                    spread[:, list(outputs[i])] = part.probabilities
                    targets[task == i] = spread
        return cls(torch.cat([part.normalised() for part in parts.values()]), targets, allowed[task])


def incremental_loss(
    logits: Float[Tensor, "n k"],
    targets: Int[Tensor, " n"] | Float[Tensor, "n k"],
    allowed: Bool[Tensor, "n k"],
    old: Sequence[tuple[Float[Tensor, "n k"], Outputs]] = (),
    temperature: float = 2.0,
) -> Float[Tensor, ""]:
    """Castro et al.'s loss: the mean cross-entropy, each image judged by its own task's outputs, plus one
    distillation term per old output layer.

    Args:
        targets: the output of each image's class, or probabilities of all outputs, 0 of those not allowed.
        allowed: the outputs of each image's task.
        old: (logits of an earlier network for the same images, the outputs to hold to them); the term is the
            mean cross-entropy between both softmaxes at `temperature`, not scaled by its square.
        temperature: the paper's 2.
    """
    logits_of_task = logits.masked_fill(~allowed, -torch.inf)
    if targets.is_floating_point():
        known = logits_of_task.log_softmax(1).masked_fill(~allowed, 0)
        loss = -(targets.to(logits.dtype) * known).sum(1).mean()
    else:
        loss = F.cross_entropy(logits_of_task, targets)
    for earlier, outputs in old:
        soft = (earlier[:, list(outputs)].to(logits.dtype) / temperature).softmax(1)
        loss = loss + F.cross_entropy(logits[:, list(outputs)] / temperature, soft)
    return loss
