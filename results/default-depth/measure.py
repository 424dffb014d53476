"""Which depth of the ConvNet suits small images, judged on training images held out.

    python results/default-depth/measure.py NAME       # digits (8×8) or usps (16×16); writes NAME.json here

A fifth of the training images of each class is set aside for judging; the test images are not looked at.
"""

import json
import sys
import time
from pathlib import Path

import torch

import datacondense as dc
from datacondense.machine.provenance import provenance
from datacondense.randomness import stream

ITERATIONS, NETWORKS, SEEDS, DEPTHS = 30, 5, (0, 1), (1, 2, 3)


def main(name: str) -> None:
    torch.set_num_threads(1)
    machine = dc.Machine.detect(precision="float32", compile=False)
    run, started = provenance(machine), time.perf_counter()
    train, judged = held_out(dc.load_dataset(name).train)
    results = {}
    for depth in DEPTHS:
        network = dc.ConvNet(depth=depth)
        for method in (dc.GradientMatching(iterations=ITERATIONS), dc.RandomSelection()):
            accuracies = []
            for seed in SEEDS:
                condensed = dc.condense(train, 1, method, network, seed=seed, machine=machine)
                score = dc.evaluate(condensed, judged, network, trials=NETWORKS, seed=seed, machine=machine)
                accuracies += score.accuracies
            score = dc.Score(tuple(accuracies))
            print(
                f"{name} {'×'.join(map(str, train.image_shape))} depth {depth} {method.name:<18} {score}",
                flush=True,
            )
            results[f"depth {depth}, {method.name}"] = {
                "mean": score.mean, "std": score.std, "accuracies": score.accuracies,
                "iterations": method.steps, "seeds": SEEDS,
            }  # fmt: skip
    record = {
        "data": train.description, "judged on": len(judged), "ipc": 1, "results": results,
        "run": run | {"threads": 1, "seconds": round(time.perf_counter() - started, 1)},
    }  # fmt: skip
    Path(__file__).with_name(f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


def held_out(data: dc.ImageDataset) -> tuple[dc.ImageDataset, dc.ImageDataset]:
    """Four fifths of each class, and the rest."""
    parts: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for label, members in enumerate(data.indices_by_class):
        shuffled = members[torch.randperm(len(members), generator=stream(0, "held out", label))]
        for part, chosen in zip(
            parts, shuffled.split([len(members) * 4 // 5, len(members) - len(members) * 4 // 5]), strict=True
        ):
            part.append(chosen)
    train, judged = (data.subset(torch.cat(part)) for part in parts)
    return dc.ImageDataset.create(train.images, train.labels, data.class_names, name=data.name), judged


main(sys.argv[1])
