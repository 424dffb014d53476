"""What a run says before it begins: the data that were read, what will be done, and on which machine."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from datacondense.data.images import ImageDataset
from datacondense.estimating import run_seconds
from datacondense.machine import Machine
from datacondense.methods import Method, Task
from datacondense.networks import Network, describe_network
from datacondense.progress.pace import seconds_per_image
from datacondense.text import clock, duration, short, shown_shape

#: The most classes that are counted one by one.
_COUNTED = 12
#: Seconds that people call hours.
_HOURS = 2 * 3600


def opening(task: Task, method: Method, done: int = 0, minutes: float | None = None) -> Iterator[str]:
    """Lines for a person; `done` steps are done already. Hours of work are announced in the first of them."""
    seconds = run_seconds(task, method) * (method.steps - done) / max(1, method.steps)
    if seconds > _HOURS and minutes is None and method.open_ended:
        yield (
            f"{method.name} with these settings takes hours here; --minutes M makes the best set of M minutes"
        )
    yield counts(task.real)
    network = describe_network(task.network, task.real.image_shape)
    images = f"{task.ipc} image{'s' if task.ipc > 1 else ''} per class"
    what = f"{method.name}, {images}, {method.plan(task)}; {network}; {circumstances(task.machine)}"
    yield what
    if minutes is not None and method.steps:
        yield f"until {clock(60 * minutes)} at the latest, when the iteration that has begun ends"
    elif seconds:
        yield f"roughly {duration(seconds)}, until {clock(seconds)}; a measured estimate follows"


def time_ahead(passes: int, network: Network, data: ImageDataset, machine: Machine) -> str:
    """About how long so many images take, forward and backward, by a brief measurement."""
    seconds = passes * seconds_per_image(network, data.image_shape, data.classes, machine)
    if machine.compile:
        return f"less than {duration(seconds)}, as compiled code is faster; a measured estimate follows"
    return f"roughly {duration(seconds)}, until {clock(seconds)}; a measured estimate follows"


def counts(data: ImageDataset) -> str:
    """The number of images in each class, or the range of these numbers."""
    sizes = [len(members) for members in data.indices_by_class]
    if data.classes <= _COUNTED:
        pairs = zip(data.class_names, sizes, strict=True)
        each = f" ({', '.join(f'{short(name)}: {size:,}' for name, size in pairs)})"
    elif min(sizes) < max(sizes):
        each = f" of {min(sizes):,} to {max(sizes):,}"
    else:
        each = f" of {sizes[0]:,}"
    shape = shown_shape(data.image_shape)
    return f"{short(data.name, 60)}: {len(data):,} training images of {shape}, {data.classes} classes{each}"


def circumstances(machine: Machine) -> str:
    """Device, threads, precision, and whether and why it compiles."""
    n = torch.get_num_threads()
    threads = f", {n} thread{'s' if n > 1 else ''}" if machine.device.type == "cpu" else ""
    compiled = "compiled" if machine.compile else "not compiled"
    return f"{machine.device}{threads}, {machine.precision}, {compiled} ({machine.why})"
