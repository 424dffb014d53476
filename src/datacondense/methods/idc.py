"""IDC: multi-formation, learned on networks that are trained on real data (Kim et al., ICML 2022).

Each stored image holds f² smaller ones, and networks learn from real images between matchings, not from S.
2,000 iterations of 100 matchings take days on a CPU. Defaults are those of the authors' code, for CIFAR-10
where images have three channels and for MNIST elsewhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, ClassVar

from torch import Tensor

from datacondense.data.images import ImageShape
from datacondense.errors import COUNT
from datacondense.learner import Learner
from datacondense.matching import Distance
from datacondense.methods.base import Task
from datacondense.methods.parts.batches import pixels_to_batch
from datacondense.methods.parts.image_optimisers import Momentum, Moving
from datacondense.methods.parts.learned_mosaics import LearnedMosaics
from datacondense.methods.parts.networks import ON_REAL_DATA, augmentation_of_networks, train_on_real
from datacondense.networks import Network
from datacondense.training import Recipe


@dataclass(frozen=True)
class IDC(LearnedMosaics):
    """Learns images that each hold several smaller ones, on networks that are trained on real data."""

    name: ClassVar[str] = "idc"
    reference: ClassVar[str] = (
        "J.-H. Kim et al., *Dataset Condensation via Efficient Synthetic-Data Parameterization*, ICML 2022."
    )
    colour_rate: ClassVar[float] = 5e-3  # `image_learning_rate` for three channels

    iterations: int = 2000
    """Networks, one per iteration."""
    matchings: int = 100
    """Matchings of each class with each network, each with one step of its images."""
    real_batch: int = 64
    """Real images per class and matching; a class with fewer uses them all."""
    distance: Distance | None = None
    """D: between gradients; unless given, `conv-mse` for three channels and `conv-l1` for others."""
    image_learning_rate: float | None = None
    """Learning rate of pixels in [0, 1], times ipc / 10 and h · w / 32² (28² without three channels).
    Unless given, 0.005 (Acc-DD: 0.01) for three channels and 0.0001 for others."""
    network_images: int | None = None
    """Real images to train θ on between two matchings; unless given, 2,000 for three channels, else 500."""

    def __post_init__(self) -> None:
        super().__post_init__()
        COUNT.require_of(self, "matchings", "real_batch", "network_images")

    def step(  # type: ignore[override]
        self, task: Task, state: Moving, k: int
    ) -> tuple[Moving, dict[str, float]]:
        """One network: match every class, then train θ on real images, again and again."""
        real, recipe = task.real, self.network_recipe
        settings = self.effective(task.ipc, len(real), real.image_shape, task.network)
        descent = Momentum(settings["image_learning_rate"], self.image_momentum)
        updates = ceil(settings["network_images"] / recipe.batch_size)
        S, velocity = real.denormalise(state.images), state.momentum.clone()  # pixels
        learner = self.network(task, k)
        optimizer = recipe.optimizer(learner.module)
        chosen, distances = list[Tensor](), S.new_zeros(real.classes, self.matchings)
        for t in range(self.matchings):
            learner.freeze_norms(task.mixed_batches(16, k, t))
            chosen = self.choose(task, learner, chosen, k, t)
            for c in task.own_classes:
                siamese = task.siamese(self.siamese, k, t, c)
                goal = learner.gradient(siamese(task.real_images(chosen[c])), c)
                seen = pixels_to_batch(task, self.decoder, self.synthetic_batch, siamese, k, t, c)
                rows = task.rows(c)
                value, slope = learner.match(S[rows], c, goal, settings["distance"], seen)
                S[rows], velocity[rows] = descent.step(S[rows], velocity[rows], slope)
                distances[c, t] = value
                task.progress.advance(len(chosen[c]))
            if t < self.matchings - 1:  # a network trained after the last matching would never be used
                taken = range(t * updates, (t + 1) * updates)
                train_on_real(task, learner, recipe, optimizer, taken, "network", k)
        task.share(S, velocity, distances)
        metrics = {"distance": sum(distances.T.flatten().tolist()) / self.matchings}
        return Moving(real.normalise(S.clamp(0, 1)), state.labels, velocity), metrics

    def network(self, task: Task, k: int) -> Learner:
        """The network that iteration k begins with: θ₀ ∼ P."""
        return task.learner(k)

    def choose(self, task: Task, learner: Learner, last: list[Tensor], k: int, t: int) -> list[Tensor]:
        """Positions of the real batch of each class for matching t; `last` has those of the one before. Those
        of the classes of other processes are not looked at."""
        classes = range(task.real.classes)
        return [task.real.sample(c, self.real_batch, task.stream("real batch", k, t, c)) for c in classes]

    @property
    def network_recipe(self) -> Recipe:
        """How the network is trained on real images."""
        return replace(ON_REAL_DATA, learning_rate=self.network_learning_rate, cutmix=self.cutmix,
                       augmentation=augmentation_of_networks(self.siamese))  # fmt: skip

    def effective(self, ipc: int, images: int, shape: ImageShape, network: Network | None) -> dict[str, Any]:
        """The learning rate as applied, and the settings that depend on the channels."""
        channels, h, w = shape
        colour = self.colour_rate, 32, 2000, "conv-mse"
        rate, side, network_images, distance = colour if channels == 3 else (1e-4, 28, 500, "conv-l1")
        return asdict(self) | {
            "image_learning_rate": (self.image_learning_rate or rate) * ipc / 10 * h * w / side**2,
            "network_images": self.network_images or network_images,
            "distance": self.distance or distance,
        }

    def passes(self, task: Task) -> int:
        """The real batches, and the training on real images."""
        settings = self.effective(task.ipc, len(task.real), task.real.image_shape, task.network)
        images = self.real_batch * task.real.classes + int(settings["network_images"])
        return self.iterations * self.matchings * images
