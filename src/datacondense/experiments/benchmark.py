"""How much faster we are than the plain loop: both in one process, in turn, on equal data and weights."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from datacondense.data.images import ImageDataset, ImageShape
from datacondense.machine import Machine
from datacondense.machine.memory import keep_freed_memory, peak_memory
from datacondense.machine.provenance import provenance
from datacondense.matching import gradient_distance
from datacondense.methods import GradientMatching, Task
from datacondense.networks import ConvNet
from datacondense.networks.base import GreyConvolution
from datacondense.randomness import stream
from datacondense.training import Recipe

CLASSES, REAL_BATCH, TESTED = 10, 256, 1000
#: The part that is a whole piece of work.
ITERATION = "one iteration, ipc 1"
SHAPES: dict[str, ImageShape] = {"CIFAR-10": (3, 32, 32), "MNIST": (1, 28, 28)}


Side = Literal["plain", "ours"]
SIDES: tuple[Side, ...] = ("plain", "ours")


@dataclass(frozen=True)
class Part:
    """One piece of work, done both ways."""

    plain: Callable[[], object]
    ours: Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Medians of the seconds that a part takes, and what the first run of ours took."""

    plain: float
    ours: float
    first: float

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.plain / self.ours


def benchmark(machine: Machine, *, repeats: int = 5, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Time every part of condensing and evaluation with the paper's ConvNet, in both ways.

    An iteration at ipc 1 is measured whole. What takes too long for that is composed from the medians of its
    parts: an iteration at ipc 10 from 10 × 10 classes' real gradients and image gradients and 9 inner loops
    of 50 epochs; an evaluation from 300 epochs on 100 images and 10,000 tested.

    Returns:
        Medians in seconds, ratios, shares of the attainable rate, and the peak memory of each side in bytes,
        with the circumstances, as JSON can hold them.
    """
    result: dict[str, Any] = {"run": provenance(machine), "repeats": repeats, "shapes": {}}
    rate = attainable_rate(machine)
    report(f"{result['run']['hardware']}, {machine.precision}, micro-batch {machine.micro_batch}, "
           f"convolutions at {rate / 1e9:,.0f} GFLOP/s")  # fmt: skip
    report(f"{'seconds (medians)':<48} {'plain':>9} {'ours':>9} {'ratio':>6}   {'ours first':>10}")
    for name, shape in SHAPES.items():
        timings = {part: _timed(work, repeats) for part, work in parts(shape, machine).items()}
        timings |= composed(timings)
        memory = {side: peak_memory_of(shape, machine, side) for side in SIDES}
        flops = 10 * (REAL_BATCH + 6) * pass_flops(shape)
        share = flops / rate / timings[ITERATION].ours
        for part, timing in timings.items():
            first = f"{timing.first:10.1f}" if timing.first else ""
            label = f"{name}: {part}"
            report(f"{label:<48} {timing.plain:9.3f} {timing.ours:9.3f} {timing.ratio:6.1f}   {first}")
        report(f"{name}: peak memory of a process that runs all parts: "
               + ", ".join(f"{side} {peak / 2**20:,.0f} MiB" for side, peak in memory.items()))  # fmt: skip
        report(f"{name}: one iteration at ipc 1 runs at {share:.0%} of the rate of convolutions alone")
        result["shapes"][name] = {
            "parts": {part: {**vars(timing), "ratio": timing.ratio} for part, timing in timings.items()},
            "share of attainable": share,
            "peak memory": memory,
        }
    return result


def parts(shape: ImageShape, machine: Machine) -> dict[str, Part]:
    """What is timed, on random images of `shape` and one drawn network."""
    g = stream(0, "benchmark")
    count = max(CLASSES * REAL_BATCH, TESTED)
    images = torch.randint(0, 256, (count, *shape), generator=g, dtype=torch.uint8)
    real = ImageDataset.create(images, torch.arange(count) % CLASSES, name="random")
    plain_machine = replace(machine, precision="float32", micro_batch=None, compile=False)
    task, plain_task = (Task(real, 1, ConvNet(), 0, m) for m in (machine, plain_machine))
    learner, plain_network = task.learner(0), plain_fresh_network(plain_task)
    method = GradientMatching(iterations=1, real_batch=REAL_BATCH)
    state, plain_state = method.init(task), method.init(plain_task)
    one = real.normalised(torch.arange(REAL_BATCH)).to(machine.device)
    labels = torch.zeros(REAL_BATCH, dtype=torch.int64, device=machine.device)
    goal = plain_gradient(plain_network, one, labels)
    synthetic = torch.randn(100, *shape, generator=g).to(machine.device)
    targets = (torch.arange(100) // 10).to(machine.device)
    inner = Recipe(epochs=5, momentum=0.5, weight_decay=0.0, decay_factor=1.0)
    tested = images[:TESTED]

    def matched(ipc: int) -> Part:
        s, y = synthetic[:ipc], targets[:ipc]
        return Part(
            lambda: plain_image_gradient(plain_network, s, y, goal),
            lambda: learner.match(s, y, goal),
        )

    return {
        "real gradient, 256 images": Part(
            lambda: plain_gradient(plain_network, one, labels),
            lambda: learner.gradient(one, labels),
        ),
        "image gradient, 1 image": matched(1),
        "image gradient, 10 images": matched(10),
        "5 epochs on 100 images": Part(
            lambda: plain_epochs(plain_network, synthetic, targets, inner),
            lambda: learner.train(synthetic, targets, inner, stream(0, "order")),
        ),
        "test of 1,000 images": Part(
            lambda: plain_test(plain_network, real.normalise(tested).to(machine.device)),
            lambda: learner.predict(tested, prepare=real.normalise),
        ),
        ITERATION: Part(
            lambda: plain_iteration(plain_task, plain_state.images, REAL_BATCH),
            lambda: method.step(task, state, 0),
        ),
    }


def composed(parts: dict[str, Timing]) -> dict[str, Timing]:
    """Whole pieces of work that are not measured, from the medians of their parts."""

    def total(counts: dict[str, int]) -> Timing:
        plain = sum(parts[part].plain * count for part, count in counts.items())
        return Timing(plain, sum(parts[part].ours * count for part, count in counts.items()), 0.0)

    real, _, ten, epochs, test, _ = parts
    return {
        "composed: iteration, ipc 10": total({real: 10 * CLASSES, ten: 10 * CLASSES, epochs: 9 * 50 // 5}),
        "composed: evaluation, 300 epochs": total({epochs: 300 // 5, test: 10_000 // TESTED}),
    }


def peak_memory_of(shape: ImageShape, machine: Machine, side: Side) -> int:
    """`hardware.peak_memory` of a process of its own in which one side runs every part."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_peak_memory, shape, machine, side, torch.get_num_threads()).result()


def _peak_memory(shape: ImageShape, machine: Machine, side: Side, threads: int) -> int:
    torch.set_num_threads(threads)
    work = parts(shape, machine).values()
    keep_freed_memory(side == "ours")
    for part in work:
        getattr(part, side)()
    return peak_memory(machine.device)


def plain_fresh_network(task: Task) -> nn.Module:
    """A newly drawn network without our way of convolving grey images."""
    network = task.fresh_learner(0).module
    for layer in network.modules():
        if isinstance(layer, GreyConvolution):
            layer.forward = MethodType(nn.Conv2d.forward, layer)  # type: ignore[method-assign]
    return network.eval()


def plain_iteration(
    task: Task, images: Float[Tensor, "n c h w"], real_batch: int
) -> Float[Tensor, "n c h w"]:
    """The images after one iteration of gradient matching at ipc 1, which needs no inner loop."""
    network, images = plain_fresh_network(task), images.clone()
    for c in range(CLASSES):
        real = task.real_batch(c, real_batch, 0, 0)
        goal = plain_gradient(network, real, torch.full((len(real),), c, device=real.device))
        mine = slice(c, c + 1)
        images[mine] -= 0.1 * plain_image_gradient(
            network, images[mine], torch.tensor([c], device=real.device), goal
        )
    return images


def plain_gradient(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """The gradient of a real batch, taken at once."""
    return torch.autograd.grad(F.cross_entropy(network(images), labels), list(network.parameters()))


def plain_image_gradient(
    network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], goal: tuple[Tensor, ...]
) -> Float[Tensor, "n c h w"]:
    """The image gradient by double backward, as in other tools."""
    x = images.detach().requires_grad_()
    loss = F.cross_entropy(network(x), labels)
    gradient = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
    return torch.autograd.grad(gradient_distance(gradient, goal), x)[0]


def plain_epochs(network: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe) -> None:
    """Training through a DataLoader, eagerly, in float32."""
    optimizer = recipe.optimizer(network)
    order = stream(0, "order")
    loader = DataLoader(TensorDataset(images, labels), recipe.batch_size, shuffle=True, generator=order)
    for _ in range(recipe.epochs):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()


@torch.no_grad()
def plain_test(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Eagerly, in float32, in batches of 256."""
    return [network(part).argmax(1) for part in images.split(256)]


def attainable_rate(machine: Machine) -> float:
    """FLOP/s of the ConvNet's middle convolution, forward and backward, alone and in its best layout."""
    dtype = torch.bfloat16 if machine.precision == "bfloat16" else torch.float32
    size = machine.micro_batch or REAL_BATCH
    best = float("inf")
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.zeros(size, 128, 16, 16, device=machine.device, dtype=dtype).to(memory_format=layout)
        weight = torch.zeros(128, 128, 3, 3, device=machine.device, dtype=dtype).to(memory_format=layout)
        images.requires_grad_()
        weight.requires_grad_()
        upstream = torch.zeros_like(images)

        def work(images: Tensor = images, weight: Tensor = weight, upstream: Tensor = upstream) -> None:
            output = F.conv2d(images, weight, padding=1)
            torch.autograd.grad(output, (images, weight), upstream)

        best = min(best, *(_seconds(work) for _ in range(8)))
    return 3 * 2 * size * 16 * 16 * 128 * 128 * 9 / best


def pass_flops(shape: ImageShape) -> float:
    """Floating-point operations of the ConvNet on one image, forward and backward in the weights."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        ConvNet()(shape, CLASSES)(torch.zeros(1, *shape)).sum().backward()
    return float(counter.get_total_flops())


def _timed(part: Part, repeats: int) -> Timing:
    def plain() -> float:
        keep_freed_memory(False)
        return _seconds(part.plain)

    def ours() -> float:
        keep_freed_memory()
        return _seconds(part.ours)

    plain()
    first = ours()
    pairs = [(plain(), ours()) for _ in range(repeats)]
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return Timing(medians[0], medians[1], first)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start
