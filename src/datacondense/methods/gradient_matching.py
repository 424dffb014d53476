"""Dataset condensation with gradient matching: Algorithm 1 of Zhao, Mopuri, Bilen (ICLR 2021).

Learns images on which a network has the gradients that it has on real images of their class. At 1 image per
class, K = 1000 took 97 to 102 minutes on one core (AMD EPYC, bfloat16 by AVX-512) and reached 92.2 ± 0.5 % on
MNIST and 28.3 ± 0.6 % on CIFAR-10 (JPEG), n = 20 networks of one set; at 10, one iteration takes minutes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from datacondense.augmentation import Augmentation
from datacondense.errors import COUNT, FRACTION, RATE
from datacondense.learner import Learner
from datacondense.matching import Distance
from datacondense.methods.base import Task
from datacondense.methods.parts.image_optimisers import Momentum, Moving
from datacondense.methods.parts.initial import Initialisation
from datacondense.methods.parts.learned_images import LearnedImages
from datacondense.methods.parts.loops import loops_for
from datacondense.networks import MLP, Network
from datacondense.training import Recipe


@dataclass(frozen=True)
class GradientMatching(LearnedImages):
    """Learns synthetic images whose network gradients agree, class by class, with those of real images.

    Defaults are the paper's. Differs from the authors' code: the iteration count is exact (theirs runs one
    more); BatchNorm statistics stay frozen in the inner loop; dropout, which none of the paper's networks
    has, is off.
    """

    name: ClassVar[str] = "gradient-matching"
    reference: ClassVar[str] = (
        "B. Zhao, K. R. Mopuri, H. Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021."
    )

    iterations: int = 1000
    """K: networks drawn, one per iteration."""
    outer_steps: int | None = None
    """T: how often S is matched per network; the paper's, by ipc, unless given."""
    network_epochs: int | None = None
    """ς_θ: epochs over S to train the network between two matchings; the paper's, by ipc, unless given."""
    image_steps: int = 1
    """ς_S: updates of S per matching."""
    image_learning_rate: float | None = None
    """η_S: learning rate of the images; unless given, 0.1, or 0.01 if the condensing network is an MLP."""
    image_momentum: float = 0.5
    """SGD momentum of the synthetic images; it lasts through all iterations."""
    network_learning_rate: float = 0.01
    """η_θ: learning rate of the network in the inner loop."""
    network_momentum: float = 0.5
    """SGD momentum in the inner loop: 0.5 in the code published with the paper, 0 in it since July 2021."""
    real_batch: int = 256
    """Real images per class and matching; a class with fewer uses them all."""
    network_batch: int = 256
    """Batch size of the inner loop."""
    batchnorm_batch: int = 16
    """Real images per class in the mixed batch that sets the statistics of BatchNorm. More than 160 in all
    are taken in several mixed batches, whose statistics are averaged: memory does not grow with classes."""
    initialisation: Initialisation = "noise"
    """S at first: Gaussian noise as in the paper, randomly chosen real images, or those of a selection."""
    siamese: Augmentation = field(default="none", metadata={"earlier": "none"})
    """`dsa` for differentiable siamese augmentation (Zhao, Bilen, ICML 2021): one draw per class and matching
    transforms the real and the synthetic batch alike, and networks train with it, in the inner loop and on
    the result; `dsa-digits`, which known digits get, does not flip."""
    distance: Distance = "paper"
    """D: between gradients; mse and cos are there to compare."""

    def __post_init__(self) -> None:
        COUNT.require_of(self, "iterations", "outer_steps", "network_epochs", "image_steps", "real_batch",
                         "network_batch", "batchnorm_batch")  # fmt: skip
        RATE.require_of(self, "image_learning_rate", "network_learning_rate")
        FRACTION.require_of(self, "image_momentum", "network_momentum")

    def passes(self, task: Task) -> int:
        """The real batches, and the epochs over S."""
        outer_steps, epochs = self._loops(task.ipc)
        real = sum(min(self.real_batch, len(members)) for members in task.real.indices_by_class)
        synthetic = task.ipc * task.real.classes
        return self.iterations * (outer_steps * real + (outer_steps - 1) * epochs * synthetic)

    def effective(self, ipc: int, images: int, shape: Any, network: Network | None) -> dict[str, Any]:
        """T and ς_θ by the paper's table, η_S by the network."""
        outer_steps, epochs = self._loops(ipc)
        given = {"outer_steps": outer_steps, "network_epochs": epochs}
        return asdict(self) | given | {"image_learning_rate": self._image_learning_rate(network)}

    def plan(self, task: Task) -> str:
        """K, T, ς_θ and η_S."""
        outer_steps, epochs = self._loops(task.ipc)
        rate = self._image_learning_rate(task.network)
        return f"K = {self.iterations}, T = {outer_steps}, ς_θ = {epochs}, η_S = {rate:g}"

    def step(  # type: ignore[override]
        self, task: Task, state: Moving, k: int
    ) -> tuple[Moving, dict[str, float]]:
        """One network's worth of Algorithm 1: draw θ₀, then T times match every class and train θ on S."""
        T, epochs = self._loops(task.ipc)
        inner = self._inner_recipe(epochs)
        S, velocity = state.images.clone(), state.momentum.clone()
        distances: list[Tensor] = []
        learner = task.learner(k)  # θ₀ ∼ P
        optimizer = inner.optimizer(learner.module)
        for t in range(T):
            learner.freeze_norms(task.mixed_batches(self.batchnorm_batch, k, t))
            distances += self.match(task, learner, S, velocity, k, t)
            if t < T - 1:  # a network trained after the last matching would never be used
                order = task.stream("inner order", k, t)
                learner.train(S, state.targets, inner, order, optimizer=optimizer, observe=task.observe)
        # Read at the end only: a GPU continues while nothing asks for its numbers.
        return Moving(S, state.labels, velocity), {"distance": sum(map(float, distances)) / T}

    def match(self, task: Task, learner: Learner, S: Tensor, v: Tensor, k: int, t: int) -> list[Tensor]:
        """Update S and its velocity v, in place, class by class; the distances before the first update."""
        descent, distances = self.descent(task.network), S.new_zeros(task.real.classes)
        for c in task.own_classes:
            transform = task.siamese(self.siamese, k, t, c)
            real = transform(task.real_batch(c, self.real_batch, k, t))  # B_c^T
            goal = learner.gradient(real, c)  # ∇θ L_c^T(θ_t)
            rows = task.rows(c)  # B_c^S: all of S_c
            for i in range(self.image_steps):  # ς_S
                distance, slope = learner.match(S[rows], c, goal, self.distance, transform)
                S[rows], v[rows] = descent.step(S[rows], v[rows], slope)
                distances[c] = distance if i == 0 else distances[c]
            task.progress.advance(len(real))
        task.share(S, v, distances)
        return list(distances)

    def descent(self, network: Network) -> Momentum:
        """opt_S."""
        return Momentum(self._image_learning_rate(network), self.image_momentum)

    def _inner_recipe(self, epochs: int) -> Recipe:
        """opt_θ: how the network is trained on S."""
        return Recipe(epochs, self.network_learning_rate, self.network_momentum, weight_decay=0.0,
                      decay_factor=1.0, batch_size=self.network_batch, augmentation=self.siamese)  # fmt: skip

    def _loops(self, ipc: int) -> tuple[int, int]:
        outer_steps, epochs = loops_for(ipc)
        return self.outer_steps or outer_steps, self.network_epochs or epochs

    def _image_learning_rate(self, network: Network | None) -> float:
        if self.image_learning_rate is not None:
            return self.image_learning_rate
        return 0.01 if isinstance(network, MLP) else 0.1
