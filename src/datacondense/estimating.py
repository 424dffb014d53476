"""What a run takes, before it begins: time, memory and disk, by a model fitted to measurements.

time    what the method costs in images (`cost`), each as long as one of a batch that is timed here
memory  this process, the real images, and what a network keeps of a batch for its gradient
disk    the condensed images, as often as files have them at once

docs/scaling.md has the model, its error on settings that were not used to fit it, and what follows from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, singledispatch
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from datacondense.data.images import ImageShape
from datacondense.data.stored import StoredTensor
from datacondense.errors import UsageError
from datacondense.machine import Machine
from datacondense.methods import METHODS, DistributionMatching, GradientMatching, Method, Task
from datacondense.methods.acc_dd import AccDD
from datacondense.methods.dance import DANCE
from datacondense.methods.idc import IDC
from datacondense.methods.parts.features import TrainedSelection
from datacondense.methods.parts.learned_images import LearnedImages
from datacondense.methods.trajectory_matching import TrajectoryMatching
from datacondense.networks import Network, build_network, describe_network
from datacondense.progress.pace import seconds_per_image
from datacondense.randomness import global_stream
from datacondense.snapshots import needed_bytes

#: Seconds of an image in a run by those of one in the timed batch: as it is, and compiled. Fitted.
PLAIN, COMPILED = 1.248, 0.883
#: Seconds to compile what a run needs.
COMPILATION = 60.0
#: Bytes of the process with its libraries, and of what is held by what autograd keeps of a batch. Fitted.
PROCESS, KEPT = 4.78e8, 1.088
#: Copies of the weights: with their gradient and momentum.
WEIGHTS = 3
#: Factors by which no run that was held out was missed, up or down; rounded up.
TIME_ERROR, MEMORY_ERROR = 2.0, 1.5
#: The most images of a batch that goes through the network at once, where the machine names no piece.
_BATCH = 256
#: The image gradient of one synthetic image, in images that go forward and backward.
_MATCH = 3


class Cost(NamedTuple):
    """In images that go forward and backward through the network, about."""

    divided: int | float
    """Those that the ranks of a run divide among them."""
    alike: int | float
    """Those that each of them works on."""
    exchanges: int = 0
    """How often the ranks exchange the condensed images."""


@singledispatch
def cost(method: Method, task: Task) -> Cost:
    """What a run costs: the method's `passes`, unless more is known of its kind."""
    return Cost(0.0, method.passes(task))


@cost.register
def _(method: GradientMatching, task: Task) -> Cost:
    T, epochs = _loops(method, task, "outer_steps", "network_epochs")
    synthetic = task.ipc * task.real.classes
    matched = T * (_seen(method.real_batch, task) + _MATCH * method.image_steps * synthetic)
    trained = (T - 1) * epochs * synthetic
    K = method.iterations
    return Cost(K * matched, K * trained + _initial(method, task), K * T)


@cost.register
def _(method: DistributionMatching, task: Task) -> Cost:
    """The real batches go forward alone."""
    learned = task.ipc * method.decoder.parts * task.real.classes
    K = method.iterations
    return Cost(K * (_seen(method.real_batch, task) / 3 + learned), _initial(method, task), K)


@cost.register
def _(method: IDC, task: Task) -> Cost:
    (images,) = _loops(method, task, "network_images")
    synthetic = min(task.ipc * method.decoder.parts, method.synthetic_batch) * task.real.classes
    matched = method.matchings * (_seen(method.real_batch, task) + _MATCH * synthetic)
    trained = (method.matchings - 1) * images
    K = method.iterations
    return Cost(K * matched, K * trained + _initial(method, task), K)


@cost.register
def _(method: AccDD, task: Task) -> Cost:
    """The pool in addition."""
    rest = cost.dispatch(IDC)(method, task)
    return rest._replace(alike=rest.alike + method.pool * method.pool_epochs * len(task.real))


@cost.register
def _(method: DANCE, task: Task) -> Cost:
    """The real batches go forward alone."""
    learned = min(task.ipc * method.decoder.parts, method.synthetic_batch) * task.real.classes
    step = _seen(method.real_batch, task) / 3 + (1 + method.calibrations) * learned
    pool = method.pool * method.pool_epochs * len(task.real)
    return Cost(method.iterations * step, pool + _initial(method, task), method.iterations)


def _seen(batch: int, task: Task) -> int:
    return sum(min(batch, len(members)) for members in task.real.indices_by_class)


def _loops(method: Method, task: Task, *names: str) -> list[int]:
    real = task.real
    settings = method.effective(task.ipc, len(real), real.image_shape, task.network)
    return [settings[name] for name in names]


def _initial(method: LearnedImages, task: Task) -> int | float:
    """A network that selects the images at first."""
    selection = METHODS.get(method.initialisation)
    if task.start is not None or selection is None or not issubclass(selection, TrainedSelection):
        return 0
    share = min(1, method.initial_candidates / len(task.real))
    return share * cost(selection(feature_epochs=method.initial_epochs), task).alike


@dataclass(frozen=True)
class Estimate:
    """Of a run with these settings on this machine."""

    seconds: float
    memory: int
    """The most bytes that a process holds: on the GPU, if that is the device."""
    disk: int
    """The most bytes in the folder, while it runs."""


def estimate(
    task: Task, method: Method, *, processes: int = 1, snapshot_every: int | None = None
) -> Estimate:
    """What it takes to run `method`, without `minutes`, on the task's machine, which is timed for a moment.

    Args:
        processes: ranks that share the run, each with hardware like that of the task.

    Raises:
        UsageError: the network cannot be built; or it cannot be followed on the meta device.
    """
    return Estimate(run_seconds(task, method, processes), memory(task, method),
                    disk(task, method, snapshot_every))  # fmt: skip


def run_seconds(task: Task, method: Method, processes: int = 1, each: float | None = None) -> float:
    """About how long a run takes, without the exchange of images among its processes.

    Args:
        each: `seconds_per_image`, where it is known.
    """
    spent = cost(method, task)
    images = spent.divided / min(processes, task.real.classes) + spent.alike
    if not images:
        return 0.0
    if each is None:
        each = seconds_per_image(task.network, task.real.image_shape, task.real.classes, task.machine)
    compiled = bool(task.machine.compile)
    return predicted_seconds(images, each, compiled=compiled) + COMPILATION * compiled


def predicted_seconds(images: int | float, each: float, *, compiled: bool) -> float:
    """The time of so many images, by that of one; compiling is not in it."""
    return (COMPILED if compiled else PLAIN) * each * images


def memory(task: Task, method: Method) -> int:
    """About the most bytes that the run holds; on a GPU without the real images, which stay outside."""
    at_once = most_at_once(method, task)
    kept, weights = kept_by_autograd(task.network, task.real.image_shape, task.real.classes, at_once)
    if isinstance(method, TrajectoryMatching):
        kept += method.student_steps * weights  # those of every step of a student
    if task.machine.device.type == "cpu":
        held = 0 if isinstance(task.real.images, StoredTensor) else task.real.images.nbytes
        return round(predicted_memory(held, weights, kept))
    return round(predicted_memory(0, weights, kept) - PROCESS)


def predicted_memory(real: int, weights: int, kept: int) -> float:
    """By the bytes of the real images, of the weights, and of what autograd keeps of a batch."""
    return PROCESS + real + WEIGHTS * weights + KEPT * kept


def most_at_once(method: Method, task: Task) -> int:
    """The most images whose gradient is taken at once: a batch or a piece of it, the images of a class, or a
    batch on which a network is trained."""
    most = max(min(task.machine.micro_batch or _BATCH, _BATCH), task.ipc * method.decoder.parts)
    if isinstance(method, GradientMatching) and _loops(method, task, "outer_steps")[0] > 1:
        most = max(most, min(method.network_batch, task.ipc * task.real.classes))
    if isinstance(method, TrajectoryMatching):
        most = max(most, method.student_batch(task), min(_BATCH, len(task.real)))
    if isinstance(method, TrainedSelection) or (isinstance(method, LearnedImages) and _initial(method, task)):
        most = max(most, min(_BATCH, len(task.real)))
    return most


@lru_cache(maxsize=8)
def kept_by_autograd(network: Network, shape: ImageShape, classes: int, batch: int) -> tuple[int, int]:
    """The bytes that PyTorch keeps of a batch until its gradient is taken, and those of the weights; counted
    on the meta device, where nothing is computed. In float32.

    Raises:
        UsageError: the network cannot be built for such images, or does not run on that device.
    """
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with global_stream(0, "estimate"):
        module = Machine(torch.device("meta"), "float32", None).place(build_network(network, shape, classes))
    weights = sum(parameter.nbytes for parameter in module.parameters())
    images = torch.empty(batch, *shape, device="meta")
    labels = torch.empty(batch, dtype=torch.int64, device="meta")
    try:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            F.cross_entropy(module(images), labels)
    except (RuntimeError, TypeError, ValueError) as error:  # it looks at values, or makes tensors elsewhere
        raise UsageError(
            f"the memory of network '{describe_network(network)}' cannot be counted, because it does not run "
            f"on PyTorch's meta device ({str(error).splitlines()[0]})"
        ) from error
    return kept, weights


def disk(task: Task, method: Method, snapshot_every: int | None = None) -> int:
    """A generous estimate of what the artifact and three checkpoints take."""
    pixels = task.ipc * task.real.classes * math.prod(task.real.image_shape)
    return 12 * 4 * pixels + 1_000_000 + needed_bytes(pixels, method.steps, snapshot_every)
