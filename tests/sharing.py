"""What the ranks of test_ranks do: condense by every learning method into the folder given."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import datacondense as dc
from conftest import toy_dataset
from datacondense.ranks import Ranks

MACHINE = dc.Machine(torch.device("cpu"), "float32", None, compile=False)
SMALL = {"real_batch": 8, "iterations": 2}
METHODS = {
    "gradient-matching": dc.GradientMatching(outer_steps=3, network_epochs=2, image_steps=2, **SMALL),
    "dsa": dc.DSA(outer_steps=2, network_epochs=2, **SMALL),
    "dcc": dc.DCC(outer_steps=2, network_epochs=2, outer_warmup=1, **SMALL),
    "distribution-matching": dc.DistributionMatching(**SMALL),
    "fast": dc.Fast(factor=2, **SMALL),
    "idc": dc.IDC(matchings=3, network_images=16, **SMALL),
    "dream": dc.DREAM(matchings=3, network_images=16, cluster_every=2, **SMALL),
    "acc-dd": dc.AccDD(matchings=2, network_images=16, pool=2, pool_epochs=1, **SMALL),
    "dance": dc.DANCE(pool=2, pool_epochs=1, **SMALL),
    "trajectory-matching": dc.TrajectoryMatching(
        iterations=2, experts=2, expert_epochs=1, max_start_epoch=2, student_steps=3, step_size_rate=1e-7
    ),
    "dataset-distillation": dc.DatasetDistillation(iterations=2, real_batch=16),
    "herding": dc.Herding(feature_epochs=1),
}


def condense(method: dc.Method, out: Path, **options: object) -> dc.CondensedDataset:
    real = toy_dataset(100, classes=4)
    return dc.condense(real, 2, method, dc.ConvNet(width=4, depth=2), machine=MACHINE, out=out, **options)  # type: ignore[arg-type]


def main(out: Path) -> None:
    ranks = Ranks.joined()
    for name, method in METHODS.items():
        made = condense(method, out / name)
        again = condense(method, out / name, resume=True)  # finished: rank 0 alone has it
        assert torch.equal(made.images, again.images)
        assert made.recipe == again.recipe
    condense(METHODS["fast"], out / "begun", validation=0.1)  # so short that its selection is compared, too
    timed = dc.DistributionMatching(iterations=100_000, real_batch=8)
    condense(timed, out / "minutes", minutes=0.05, validation=0.1)
    if ranks.count > 1:
        try:
            condense(METHODS["fast"], out / "refused", seed=ranks.rank)
        except dc.DatacondenseError as error:
            print(f"refused: {error}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
