"""Dataset condensation with gradient matching: Algorithm 1 of Zhao, Mopuri, Bilen (ICLR 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from datacondense.errors import COUNT, FRACTION, RATE
from datacondense.matching import Distance, by_forward_mode, network_gradient, pull_back
from datacondense.methods.base import Method, State, Task, balanced_labels, require_enough_images
from datacondense.networks import MLP, Network, batchnorm_layers, freeze_batchnorm
from datacondense.training import Recipe, train

#: ipc → (T, ς_θ), the paper's.
PAPER_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}

#: Images of which BatchNorm takes its statistics at once: 16 of each of ten classes.
_MIXED_BATCH = 160


def loops_for(ipc: int) -> tuple[int, int]:
    """(T, ς_θ): how often S is matched per network, and epochs over S between two matchings.

    The paper's table where it has the ipc. Its values follow T = ipc and T · ς_θ ≈ 500; elsewhere the same
    rule holds, with ς_θ at most 50, and beyond 50 images per class (50, 10), as the authors advise.
    """
    if ipc in PAPER_LOOPS:
        return PAPER_LOOPS[ipc]
    return (50, 10) if ipc > 50 else (ipc, min(50, round(500 / ipc)))


@dataclass(frozen=True)
class GradientMatching(Method):
    """Learns synthetic images whose network gradients agree, class by class, with those of real images.

    Defaults are the paper's. Differs from the authors' code: the iteration count is exact (theirs runs one
    more); BatchNorm statistics stay frozen in the inner loop; dropout, which none of the paper's networks
    has, is off.
    """

    name: ClassVar[str] = "gradient-matching"
    reference: ClassVar[str] = (
        "B. Zhao, K. R. Mopuri, H. Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021."
    )
    open_ended: ClassVar[bool] = True

    iterations: int = 1000
    """K: networks drawn, one per iteration."""
    outer_steps: int | None = None
    """T: how often S is matched per network; the paper's, by ipc, unless given."""
    network_epochs: int | None = None
    """ς_θ: epochs over S to train the network between two matchings; the paper's, by ipc, unless given."""
    image_steps: int = 1
    """ς_S: updates of S per matching."""
    image_learning_rate: float | None = None
    """η_S: of the synthetic images; unless given, 0.1, or 0.01 where the condensing network is an MLP."""
    image_momentum: float = 0.5
    """SGD momentum of the synthetic images; it lasts through all iterations."""
    network_learning_rate: float = 0.01
    """η_θ: of the network in the inner loop."""
    network_momentum: float = 0.5
    """SGD momentum in the inner loop: 0.5 in the code published with the paper, 0 in it since July 2021."""
    real_batch: int = 256
    """Real images per class and matching; a class with fewer uses them all."""
    network_batch: int = 256
    """Batch size of the inner loop."""
    batchnorm_batch: int = 16
    """Real images per class in the mixed batch that sets the statistics of BatchNorm. More than 160 in all
    are taken in several mixed batches, whose statistics are averaged: memory does not grow with classes."""
    initialisation: Literal["noise", "real"] = "noise"
    """S at first: Gaussian noise as in the paper, or randomly chosen real images."""
    distance: Distance = "paper"
    """D: between gradients; mse and cos are there to compare."""

    def __post_init__(self) -> None:
        COUNT.require_of(self, "iterations", "outer_steps", "network_epochs", "image_steps", "real_batch",
                         "network_batch", "batchnorm_batch")  # fmt: skip
        RATE.require_of(self, "image_learning_rate", "network_learning_rate")
        FRACTION.require_of(self, "image_momentum", "network_momentum")

    @property
    def steps(self) -> int:
        """K."""
        return self.iterations

    def passes(self, task: Task) -> int:
        """The real batches, and the epochs over S."""
        outer_steps, epochs = self._loops(task.ipc)
        real = sum(min(self.real_batch, len(members)) for members in task.real.indices_by_class)
        synthetic = task.ipc * task.real.classes
        return self.iterations * (outer_steps * real + (outer_steps - 1) * epochs * synthetic)

    def effective(self, ipc: int, images: int, network: Network | None) -> dict[str, Any]:
        """T and ς_θ by the paper's table, η_S by the network."""
        outer_steps, epochs = self._loops(ipc)
        given = {"outer_steps": outer_steps, "network_epochs": epochs}
        return asdict(self) | given | {"image_learning_rate": self._image_learning_rate(network)}

    def plan(self, task: Task) -> str:
        """K, T, ς_θ and η_S."""
        outer_steps, epochs = self._loops(task.ipc)
        rate = self._image_learning_rate(task.network)
        return f"K = {self.iterations}, T = {outer_steps}, ς_θ = {epochs}, η_S = {rate:g}"

    def init(self, task: Task) -> State:
        """S before the first iteration, and its momentum."""
        labels = balanced_labels(task)
        if self.initialisation == "real":
            require_enough_images(task)
            chosen = [
                task.real.sample(label, task.ipc, task.stream("initial images", label))
                for label in range(task.real.classes)
            ]
            images = task.real_images(torch.cat(chosen))
        else:
            shape = (len(labels), *task.real.image_shape)
            images = torch.randn(shape, generator=task.stream("initial images"))
        images = images.to(task.machine.device, task.machine.dtype)
        return State(images, labels, {"momentum": torch.zeros_like(images)})

    def step(self, task: Task, state: State, k: int) -> tuple[State, dict[str, float]]:
        """One network's worth of Algorithm 1: draw θ₀, then T times match every class and train θ on S."""
        outer_steps, epochs = self._loops(task.ipc)
        inner = Recipe(
            epochs=epochs,
            learning_rate=self.network_learning_rate,
            momentum=self.network_momentum,
            weight_decay=0.0,
            decay_factor=1.0,
            batch_size=self.network_batch,
        )
        network = task.redrawn_network(k)
        optimizer = inner.optimizer(network)
        distances = []
        for t in range(outer_steps):
            network.eval()
            if batchnorm_layers(network):
                freeze_batchnorm(network, self._mixed_batches(task, k, t))
            state, distances_t = self._match_every_class(task, state, network, k, t)
            distances += distances_t
            if t < outer_steps - 1:  # a network trained after the last matching would never be used
                order = task.stream("inner order", k, t)
                train(network, state.images, state.labels, inner, order, task.machine, optimizer=optimizer,
                      observe=lambda batch, _: task.progress.advance(len(batch)))  # fmt: skip
        # Read at the end only: a GPU goes on while nothing asks for its numbers.
        return state, {"distance": sum(map(float, distances)) / outer_steps}

    def _match_every_class(
        self, task: Task, state: State, network: nn.Module, k: int, t: int
    ) -> tuple[State, list[torch.Tensor]]:
        """S_c ← opt_S( D(∇θ L_c^S(θ_t), ∇θ L_c^T(θ_t)) ) for every class c; and each D before its update."""
        machine, learning_rate = task.machine, self._image_learning_rate(task.network)
        images, momentum = state.images.clone(), state.extra["momentum"].clone()
        labels = state.labels.to(machine.device)
        forward = machine.forward(network, machine.micro_batch)
        matched = machine.fast(network, pull_back, directional=by_forward_mode)
        distances: list[torch.Tensor] = []
        for c in range(task.real.classes):
            real = task.real_batch(c, self.real_batch, k, t)
            target = torch.full((len(real),), c, device=machine.device)
            real_gradient = network_gradient(
                network, real, target, micro_batch=machine.micro_batch, forward=forward
            )
            mine = slice(c * task.ipc, (c + 1) * task.ipc)
            for step in range(self.image_steps):
                value, gradient = matched(images[mine], labels[mine], real_gradient, self.distance)
                momentum[mine] = self.image_momentum * momentum[mine] + gradient
                images[mine] -= learning_rate * momentum[mine]
                if step == 0:
                    distances.append(value)
            task.progress.advance(len(real))
        return State(images, state.labels, {"momentum": momentum}), distances

    def _mixed_batches(self, task: Task, k: int, t: int) -> Iterator[torch.Tensor]:
        """Images of every class: of ten classes one batch as in the paper, of more several, each mixed."""
        generator, classes = task.stream("batchnorm batch", k, t), range(task.real.classes)
        mixed = torch.cat([task.real.sample(c, self.batchnorm_batch, generator) for c in classes])
        batches = math.ceil(len(mixed) / _MIXED_BATCH)
        return (task.real_images(mixed[i::batches]) for i in range(batches))

    def _loops(self, ipc: int) -> tuple[int, int]:
        outer_steps, epochs = loops_for(ipc)
        return self.outer_steps or outer_steps, self.network_epochs or epochs

    def _image_learning_rate(self, network: Network | None) -> float:
        if self.image_learning_rate is not None:
            return self.image_learning_rate
        return 0.01 if isinstance(network, MLP) else 0.1
