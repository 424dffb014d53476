"""The oracle: distance, double backward and Algorithm 1 written as plainly as possible."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from datacondense import Learner, Machine
from datacondense.methods import GradientMatching, Task
from datacondense.methods.gradient_matching import loops_for
from datacondense.networks import freeze_batchnorm


def quarters(images: torch.Tensor, factor: int) -> torch.Tensor:
    """Of each image all parts, scaled up."""
    side = images.shape[-1] // factor
    parts = [
        F.interpolate(
            image[None, :, side * i :, side * j :][..., :side, :side], images.shape[2:], mode="bilinear"
        )
        for image in images
        for i in range(factor)
        for j in range(factor)
    ]
    return torch.cat(parts)


def plain_distance(a, b):
    """Node by node, as the paper's equation reads."""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        if x.dim() < 2:
            continue
        for i in range(x.shape[0]):
            inner = (x[i] * y[i]).sum()
            total = total + 1 - inner / (x[i].norm() * y[i].norm() + 1e-6)
    return total


def matched(network, synthetic, labels, real, real_labels, distance="paper"):
    """What `Learner.match` finds, class by class: the distance summed, and its image gradient."""
    learner = Learner.of(network, Machine(torch.device("cpu"), "float64", micro_batch=None))
    total, slopes = 0.0, torch.zeros_like(synthetic)
    for c in labels.unique().tolist():
        goal = learner.gradient(real[real_labels == c], c)
        value, slopes[labels == c] = learner.match(synthetic[labels == c], c, goal, distance)
        total = total + value
    return total, slopes


def double_backward(network, synthetic, labels, real, real_labels, distance=plain_distance):
    """The distance summed over classes, and its image gradient, by differentiating twice."""
    x = synthetic.clone().requires_grad_()
    parameters = list(network.parameters())
    total = 0.0
    for c in labels.unique():
        loss_s = F.cross_entropy(network(x[labels == c]), labels[labels == c])
        loss_t = F.cross_entropy(network(real[real_labels == c]), real_labels[real_labels == c])
        g_s = torch.autograd.grad(loss_s, parameters, create_graph=True)
        g_t = torch.autograd.grad(loss_t, parameters)
        total = total + distance(g_s, g_t)
    return total.detach(), torch.autograd.grad(total, x)[0]


def algorithm_1(task: Task, method: GradientMatching) -> torch.Tensor:
    """Algorithm 1 of the paper with the library's draws; returns the synthetic images, normalised."""
    real, ipc = task.real, task.ipc
    outer_steps, epochs = loops_for(ipc)
    labels = torch.arange(real.classes).repeat_interleave(ipc)
    shape = (len(labels), *real.image_shape)
    s = torch.randn(shape, generator=task.stream("initial images")).double()
    velocity = torch.zeros_like(s)
    for k in range(method.iterations):
        network = task.fresh_learner(k).module
        theta_velocity = [torch.zeros_like(p) for p in network.parameters()]
        for t in range(outer_steps):
            generator = task.stream("batchnorm batch", k, t)
            mixed = [real.sample(c, method.batchnorm_batch, generator) for c in range(real.classes)]
            freeze_batchnorm(network, [real.normalised(torch.cat(mixed)).double()])
            batches = [task.real_batch(c, method.real_batch, k, t) for c in range(real.classes)]
            real_labels = torch.cat([torch.full((len(b),), c) for c, b in enumerate(batches)])
            _, gradient = double_backward(network, s, labels, torch.cat(batches), real_labels)
            velocity = 0.5 * velocity + gradient
            s = s - 0.1 * velocity
            if t == outer_steps - 1:
                break
            order = task.stream("inner order", k, t)
            for _ in range(epochs):
                for batch in torch.randperm(len(s), generator=order).split(256):
                    loss = F.cross_entropy(network(s[batch]), labels[batch])
                    gradients = torch.autograd.grad(loss, list(network.parameters()))
                    with torch.no_grad():
                        for p, v, g in zip(network.parameters(), theta_velocity, gradients, strict=True):
                            v.mul_(0.5).add_(g)
                            p.sub_(0.01 * v)
    return s


def linear_network(weight: torch.Tensor) -> nn.Module:
    """One linear layer without bias, for cases that can be computed by hand."""
    layer = nn.utils.skip_init(nn.Linear, *reversed(weight.shape), bias=False, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return nn.Sequential(nn.Flatten(), layer)
