"""What a run says before it begins: the data that were read, what will be done, and on which machine."""

from __future__ import annotations

import torch

from datacondense.data.images import ImageDataset
from datacondense.machine import Machine
from datacondense.methods import Method, Task
from datacondense.networks import describe_network
from datacondense.report.text import short

#: The most classes that are counted one by one.
_COUNTED = 12


def opening(task: Task, method: Method) -> tuple[str, str]:
    """Two lines for a person."""
    network = describe_network(task.network, task.real.image_shape)
    images = f"{task.ipc} image{'s' if task.ipc > 1 else ''} per class"
    what = f"{method.name}, {images}, {method.plan(task)}; {network}; {circumstances(task.machine)}"
    return counts(task.real), what


def counts(data: ImageDataset) -> str:
    """The images of each class, or between which numbers they are."""
    sizes = [len(members) for members in data.indices_by_class]
    if data.classes <= _COUNTED:
        pairs = zip(data.class_names, sizes, strict=True)
        each = f" ({', '.join(f'{short(name)}: {size:,}' for name, size in pairs)})"
    elif min(sizes) < max(sizes):
        each = f" of {min(sizes):,} to {max(sizes):,}"
    else:
        each = f" of {sizes[0]:,}"
    shape = "×".join(map(str, data.image_shape))
    return f"{short(data.name, 60)}: {len(data):,} training images of {shape}, {data.classes} classes{each}"


def circumstances(machine: Machine) -> str:
    """Device, threads, precision, and whether and why it compiles."""
    n = torch.get_num_threads()
    threads = f", {n} thread{'s' if n > 1 else ''}" if machine.device.type == "cpu" else ""
    compiled = "compiled" if machine.compile else "not compiled"
    return f"{machine.device}{threads}, {machine.precision}, {compiled} ({machine.why})"
