"""What runs take of time and memory, to fit and to check the model of `datacondense estimate`.

    python results/estimate/measure.py        # writes measurements.json here, in about ten minutes

Each run has a process of its own, on one thread, with random images and an empty cache. Seconds are CPU
seconds of the process, so that other work on the machine counts little. Runs held out check the model.
"""

import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

import datacondense as dc
from datacondense.estimating import WEIGHTS, cost, kept_by_autograd, most_at_once
from datacondense.machine.memory import forget_peak_memory, peak_memory
from datacondense.machine.provenance import provenance
from datacondense.methods import METHODS, Task
from datacondense.networks import parse_network
from datacondense.progress.pace import seconds_per_image
from datacondense.randomness import stream

PLACE = Path(__file__).parent
#: About so many CPU seconds for each run.
ENOUGH = 8.0


def run(
    method: str, ipc: int, network: str, shape: tuple[int, int, int], classes: int, per_class: int,
    *, held_out: bool = False, compiled: bool = False, **of_method: Any,
) -> dict[str, Any]:  # fmt: skip
    """What is run: the settings of the method beyond its defaults are `of_method`."""
    return {"method": method, "of_method": of_method, "ipc": ipc, "network": network, "shape": shape,
            "classes": classes, "per_class": per_class, "compiled": compiled,
            "held_out": held_out}  # fmt: skip


GREY, COLOUR, LARGE = (1, 28, 28), (3, 32, 32), (3, 64, 64)
RUNS = [
    run("gradient-matching", 1, "convnet", GREY, 10, 300),
    run("gradient-matching", 1, "convnet(width=64)", COLOUR, 50, 100, real_batch=64),
    run("gradient-matching", 10, "convnet(width=32)", COLOUR, 10, 300, outer_steps=3, network_epochs=10),
    run("gradient-matching", 5, "lenet", GREY, 10, 300, outer_steps=3, network_epochs=10),
    run("gradient-matching", 1, "resnet18", COLOUR, 2, 100, real_batch=64),
    run("distribution-matching", 10, "convnet(width=64)", COLOUR, 10, 300),
    run("distribution-matching", 1, "convnet(width=32)", LARGE, 10, 100),
    run("fast", 10, "convnet(width=32)", GREY, 10, 500),
    run("idc", 10, "convnet(width=32)", COLOUR, 10, 200, matchings=3),
    run("herding", 10, "convnet(width=32)", COLOUR, 10, 500, feature_epochs=1),
    run("gradient-matching", 1, "convnet(width=64)", COLOUR, 10, 300, compiled=True),
    run("distribution-matching", 10, "convnet(width=32)", COLOUR, 10, 300, compiled=True),
    run("gradient-matching", 1, "convnet", COLOUR, 10, 300, held_out=True),
    run("gradient-matching", 1, "convnet(width=64)", LARGE, 10, 100, held_out=True),
    run(
        "gradient-matching",
        20,
        "convnet(width=32)",
        GREY,
        5,
        300,
        outer_steps=3,
        network_epochs=10,
        held_out=True,
    ),
    run("gradient-matching", 1, "convnet(width=32)", (1, 16, 16), 100, 60, held_out=True),
    run("gradient-matching", 1, "vgg11", COLOUR, 3, 100, real_batch=64, held_out=True),
    run("dsa", 1, "convnet(width=64)", COLOUR, 10, 200, held_out=True),
    run("dcc", 2, "convnet(width=64)", COLOUR, 5, 200, outer_steps=2, network_epochs=5, held_out=True),
    run("distribution-matching", 50, "convnet(width=32)", COLOUR, 10, 300, held_out=True),
    run("distribution-matching", 1, "convnet", GREY, 20, 300, held_out=True),
    run("fast", 1, "convnet(width=32)", LARGE, 10, 100, held_out=True),
    run("dream", 5, "convnet(width=32)", COLOUR, 5, 300, matchings=3, held_out=True),
    run("dataset-distillation", 1, "lenet", GREY, 10, 200, held_out=True),
    run("k-center", 10, "convnet(width=32)", GREY, 10, 500, feature_epochs=2, held_out=True),
    run("gradient-matching", 1, "convnet(width=64)", GREY, 10, 300, compiled=True, held_out=True),
    run("fast", 10, "convnet(width=32)", COLOUR, 10, 300, compiled=True, held_out=True),
]


def measured(about: dict[str, Any]) -> dict[str, Any]:
    """What the model says of a run that is long enough, and what that run took; in this process."""
    torch.set_num_threads(1)
    shape, classes, ipc = about["shape"], about["classes"], about["ipc"]
    n = classes * about["per_class"]
    pixels = torch.randint(0, 256, (n, *shape), generator=stream(0, "estimate"), dtype=torch.uint8)
    real = dc.ImageDataset.create(pixels, torch.arange(n) % classes, name="random")
    machine, network = (
        dc.Machine(torch.device("cpu"), "float32", 32, about["compiled"]),
        parse_network(about["network"]),
    )
    task = Task(real, ipc, network, 0, machine)
    method = METHODS[about["method"]](**about["of_method"]).for_data(real, ipc)
    dc.Recipe().optimizer(task.learner(0).module)  # what a process imports once
    seconds_per_image(network, shape, classes, machine)
    each = seconds_per_image(network, shape, classes, machine, time.process_time)
    if method.steps:
        one = sum(cost(replace(method, iterations=1), task)[:2]) * each
        method = replace(method, iterations=max(2, min(50, math.ceil(ENOUGH / one))))
    if about["compiled"]:  # once for all, as in a long run
        method.step(task, method.init(task), 0)
    forget_peak_memory(machine.device)
    started = time.process_time()
    state = method.init(task)
    for k in range(method.steps):
        state, _ = method.step(task, state, k)
    took = time.process_time() - started
    kept, weights = kept_by_autograd(network, shape, classes, most_at_once(method, task))
    return {"steps": method.steps, "each": each, "images": sum(cost(method, task)[:2]), "seconds": took,
            "real": real.images.nbytes, "weights": weights, "kept": kept,
            "memory": peak_memory(machine.device)}  # fmt: skip


def fitted(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The constants of the model: factors of time, plain and compiled, and of memory."""
    used = [row for row in rows if not row["held_out"]]
    factors = []
    for compiled in (False, True):
        ratios = [
            row["seconds"] / (row["each"] * row["images"]) for row in used if row["compiled"] == compiled
        ]
        factors.append(statistics.geometric_mean(ratios))
    plain = [row for row in used if not row["compiled"]]
    terms = np.array([[1.0, row["kept"]] for row in plain])
    memory = np.array([row["memory"] for row in plain])
    given = np.array([row["real"] + WEIGHTS * row["weights"] for row in plain])
    scale = terms.max(0)
    constants, _ = nnls(terms / scale / memory[:, None], 1 - given / memory)  # relative errors
    return {"time": factors, "memory": (constants / scale).tolist()}


def main() -> None:
    torch.set_num_threads(1)
    about = provenance(dc.Machine(torch.device("cpu"), "float32", 32)) | {
        "clock": "CPU seconds of the process"
    }
    rows = []
    for one in RUNS:
        with TemporaryDirectory() as cache:
            os.environ |= {"DATACONDENSE_CACHE": cache, "TORCHINDUCTOR_CACHE_DIR": f"{cache}/compiled"}
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                rows.append(one | process.submit(measured, one).result())
        print(rows[-1], file=sys.stderr, flush=True)
        (PLACE / "measurements.json").write_text(json.dumps({"run": about, "rows": rows}, indent=1) + "\n")
    print(fitted(rows))


if __name__ == "__main__":
    main()
