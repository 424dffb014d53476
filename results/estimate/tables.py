"""The tables of docs/scaling.md: the errors of the model, and what it predicts.

python results/estimate/tables.py
"""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import datacondense as dc
from datacondense.estimating import PLAIN, cost, memory, predicted_memory, predicted_seconds
from datacondense.machine import Machine
from datacondense.methods import METHODS, Method, Task
from datacondense.networks import Network, build_network
from datacondense.text import duration, shown_shape, size

PLACE = Path(__file__).parent
PAGE = PLACE.parent.parent / "docs" / "scaling.md"
#: Assumed of a GPU: floating-point operations in a second that convolutions reach, and bytes between ranks.
REACHED, BANDWIDTH = 20e12, 10e9

#: Name, shape, classes, training images.
DATA = [
    ("CIFAR-100", (3, 32, 32), 100, 50_000),
    ("Tiny-ImageNet", (3, 64, 64), 200, 100_000),
    ("ImageNet-1k", (3, 224, 224), 1000, 1_281_167),
]
METHODS_SHOWN: list[tuple[Method, int]] = [
    (METHODS["gradient-matching"](), 1),
    (METHODS["gradient-matching"](), 10),
    (METHODS["fast"](), 10),
    (METHODS["distribution-matching"](), 10),
]


def measurements() -> list[dict[str, Any]]:
    """The rows of measurements.json."""
    return json.loads((PLACE / "measurements.json").read_text())["rows"]


def errors(rows: list[dict[str, Any]], of: str) -> list[float]:
    """Predicted by measured, of each row: `seconds` or `memory`."""
    if of == "seconds":
        return [
            predicted_seconds(r["images"], r["each"], compiled=r["compiled"]) / r["seconds"] for r in rows
        ]
    return [predicted_memory(r["real"], r["weights"], r["kept"]) / r["memory"] for r in rows]


def error_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each run that was held out, and one for all."""
    held_out = [row for row in rows if row["held_out"]]
    yield "| held out | time | memory |"
    yield "|---|---|---|"
    pairs = zip(held_out, errors(held_out, "seconds"), errors(held_out, "memory"), strict=True)
    for row, time, held in pairs:
        of = f"{row['method']}, {row['ipc']} × {row['classes']} classes, {shown_shape(row['shape'])}"
        how, shown = (", compiled", "") if row["compiled"] else ("", f"{held:.2f}")
        yield f"| {of}, {row['network']}{how} | {time:.2f} | {shown} |"


def worst(ratios: list[float]) -> float:
    """The factor that none is off by more than, up or down."""
    return max(max(ratio, 1 / ratio) for ratio in ratios)


def gpu_seconds(network: Network, shape: tuple[int, int, int], classes: int) -> float:
    """Of an image, forward and backward, at `REACHED`."""
    with torch.device("meta"):
        module = build_network(network, shape, classes)
    with FlopCounterMode(display=False) as counter:
        images, labels = (
            torch.empty(2, *shape, device="meta"),
            torch.zeros(2, dtype=torch.int64, device="meta"),
        )
        F.cross_entropy(module(images), labels).backward()
    return counter.get_total_flops() / 2 / REACHED


def predictions() -> Iterator[str]:
    """Time on 1, 8 and 64 GPUs, and memory, of datasets that were not run here."""
    yield "| data | method | images per class | network | 1 GPU | 8 GPUs | 64 GPUs | memory of each | S |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, shape, classes, images in DATA:
        labels = torch.arange(images) % classes
        blank = torch.zeros(1, *shape, dtype=torch.uint8).expand(images, *shape)
        flat = (0.5,) * shape[0]
        real = dc.ImageDataset(blank, labels, tuple(map(str, range(classes))), flat, flat, name)
        for method, ipc in METHODS_SHOWN:
            chosen, network = method.for_data(real, ipc), method.default_network
            task = Task(real, ipc, network, 0, Machine(torch.device("cuda"), "float32", None))
            spent, stored = cost(chosen, task), 4 * ipc * classes * real.images[0].numel()
            each = gpu_seconds(network, shape, classes)
            times = []
            for processes in (1, 8, 64):
                computed = PLAIN * each * (spent.divided / min(processes, classes) + spent.alike)
                times.append(duration(computed + (processes > 1) * spent.exchanges * 2 * stored / BANDWIDTH))
            yield (
                f"| {name} | {method.name} | {ipc} | {dc.networks.describe_network(network, shape)} | "
                f"{' | '.join(times)} | {size(memory(task, chosen))} | {size(stored)} |"
            )


def generated() -> str:
    """What stands between the marks of the page."""
    rows = measurements()
    held_out = [row for row in rows if row["held_out"]]
    time, held = errors(held_out, "seconds"), errors([r for r in held_out if not r["compiled"]], "memory")
    times, memories = (f"{statistics.geometric_mean(found):.2f}" for found in (time, held))
    about = (
        f"Over {len(held_out)} held-out runs, the predicted time is {times} of the measured one (geometric mean), "
        f"at most a factor of {worst(time):.2f} away from it; the memory, of those not compiled, {memories} and "
        f"{worst(held):.2f}."
    )
    return "\n".join(
        [about, "", *error_table(rows), "", "## Predictions", "", ASSUMED, "", *predictions(), ""]
    )


ASSUMED = f"""\
None of this was run. It is what the model gives for {REACHED / 1e12:.0f} TFLOP/s reached in convolutions on
every GPU and {BANDWIDTH / 1e9:.0f} GB/s between any two ranks, without compilation, with the methods' default
settings; ranks beyond the number of classes do not help. S is what the condensed images take, in float32."""


def main() -> None:
    from datacondense.experiments.pages import update

    update(PAGE, generated())
    print(PAGE, file=sys.stderr)


if __name__ == "__main__":
    main()
