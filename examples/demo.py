"""Condense real handwritten digits to 10 images per class, and see what they are worth.

Run by `make demo`.

The settings were chosen on a part of the training images; the test images are used here only.
"""

import json
import time
from pathlib import Path

import datacondense as dc
from datacondense.machine.provenance import provenance

OUT = Path("runs/demo")
NETWORK = dc.ConvNet(width=64, depth=2)  # the paper's network has depth 3 and width 128, for larger images
METHOD = dc.GradientMatching(iterations=5, initialisation="real")  # the paper: 1000 iterations, from noise
NETWORKS = 5  # the paper: 100

run, started = provenance(dc.Machine.detect()), time.perf_counter()
real = dc.load_dataset("digits")
condensed = dc.condense(real.train, ipc=10, method=METHOD, network=NETWORK, seed=0, out=OUT, overwrite=True)

random_scores = []
for seed in range(NETWORKS):  # a new draw for each network
    selection = dc.condense(real.train, ipc=10, method=dc.RandomSelection(), seed=seed)
    random_scores += dc.evaluate(selection, real.test, network=NETWORK, trials=1, seed=seed).accuracies
scores = {
    "100 random real images": dc.Score(tuple(random_scores)),
    "100 condensed images": dc.evaluate(condensed, real.test, network=NETWORK, trials=NETWORKS),
    f"all {len(real.train):,} real images": dc.evaluate(
        real.train, real.test, network=NETWORK, trials=NETWORKS, recipe=dc.Recipe(epochs=30)
    ),
}

print(f"\n{real.train}, tested on {len(real.test)} others\n")
print(f"{'trained on':<26} test accuracy, mean ± std of n networks")
for name, score in scores.items():
    print(f"{name:<26} {score}")
run["seconds"] = round(time.perf_counter() - started, 1)
results = {
    name: {"mean": score.mean, "std": score.std, "accuracies": score.accuracies, "run": run}
    for name, score in scores.items()
}
(OUT / "scores.json").write_text(json.dumps(results, indent=2) + "\n")
print(f"\n{run['seconds']:.0f} seconds on {run['hardware']}")
print(f"artifact: {OUT}/    scores: {OUT}/scores.json    picture: {OUT}/condensed.png")
