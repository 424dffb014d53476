"""Smoke checks of a device, in a few minutes, for when a GPU is at hand: python tests/gpu_checks.py

Every learning method and selection, every verb, precision, compilation, resumption and evaluation once,
with the results of the CPU beside them; then the benchmark. docs/gpu-checks.md says what each line means.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import tyro

import datacondense as dc
from datacondense.cli import main
from datacondense.cli.dispatch import VERBS
from datacondense.methods import METHODS, Task
from datacondense.methods.base import Selection

#: The settings that make a method short, where it has them.
SHORT = {"iterations": 2, "outer_steps": 2, "network_epochs": 2, "outer_warmup": 1, "matchings": 2,
         "network_images": 64, "pool": 1, "pool_epochs": 1, "feature_epochs": 1, "initial_epochs": 1,
         "real_batch": 64, "cluster_every": 1, "experts": 1, "expert_epochs": 1, "max_start_epoch": 2,
         "student_steps": 3}  # fmt: skip
NETWORK, SMALL = dc.ConvNet(width=16), "convnet(width=16)"
#: The most by which images may differ from those of the CPU, as a part of their norm, and the part of the
#: selected images that must be the same: TF32 and the order of sums make the difference.
CLOSE, SAME = 0.02, 0.8


class Failed(Exception):
    """What a check found wrong."""


@dataclass(frozen=True)
class Checks:
    """The checks of `device`; each gives what it found, in a few words, or raises `Failed`."""

    device: str

    @property
    def all(self) -> dict[str, Callable[[], str]]:
        """By name, in the order in which they run."""
        methods = {
            f"method {name}": lambda kind=kind: self.method(short(kind)) for name, kind in METHODS.items()
        }
        verbs = {f"verb {words[0]}": lambda words=words: self.verb(words) for words in self.commands()}
        return {
            **methods,
            "bfloat16": self.bfloat16,
            "compiled": self.compiled,
            "resumed": self.resumed,
            "evaluated": self.evaluated,
            "waits for numbers": self.synchronised,
            **verbs,
        }

    def machine(self, precision: str = "float32", *, compile: bool = False) -> dc.Machine:
        return dc.Machine.detect(self.device, precision, compile=compile)  # type: ignore[arg-type]

    def condensed(self, method: dc.Method, machine: dc.Machine, **options: Any) -> dc.CondensedDataset:
        return dc.condense(DIGITS.train, 2, method, NETWORK, machine=machine, progress=False, **options)

    def method(self, method: dc.Method) -> str:
        there = self.condensed(method, self.machine())
        here = self.condensed(method, Checks("cpu").machine())
        if isinstance(method, Selection):
            ours, theirs = (set(one.record["indices"]) for one in (there, here))
            part = len(ours & theirs) / len(theirs)
            return verdict(part >= SAME, f"{part:.0%} of the images that the CPU selects")
        return close(there, here)

    def bfloat16(self) -> str:
        method = replace(short(dc.DistributionMatching), iterations=20)
        there, here = (
            self.condensed(method, self.machine(precision)) for precision in ("bfloat16", "float32")
        )
        return close(there, here)

    def compiled(self) -> str:
        method = replace(short(dc.DistributionMatching), iterations=20)
        there, here = (self.condensed(method, self.machine(compile=compile)) for compile in (True, False))
        return close(there, here)

    def resumed(self) -> str:
        method, machine = short(dc.GradientMatching), self.machine()
        with TemporaryDirectory() as folder:
            self.condensed(method, machine, out=folder, minutes=0, validation=0.0)
            there = self.condensed(method, machine, out=folder, minutes=60, validation=0.0, resume=True)
        here = self.condensed(method, machine)
        same = torch.equal(there.images, here.images)
        return "the same bytes" if same else f"not the same bytes: {close(there, here)}"

    def evaluated(self) -> str:
        condensed = self.condensed(dc.RandomSelection(), self.machine())
        recipe = dc.Recipe(epochs=100)
        there, here = (
            dc.evaluate(condensed, DIGITS.test, NETWORK, trials=3, recipe=recipe, machine=one, progress=False)
            for one in (self.machine(), Checks("cpu").machine())
        )
        return verdict(abs(there.mean - here.mean) < 0.1, f"{there}, on the CPU {here}")

    def synchronised(self) -> str:
        """How often the second step of a method makes the processor wait for the GPU."""
        if torch.device(self.device).type != "cuda":
            return "not on a GPU"
        counts = []
        for kind in (dc.GradientMatching, dc.DistributionMatching):
            method = short(kind)
            task = Task(DIGITS.train, 2, NETWORK, 0, self.machine())
            state, _ = method.step(task, method.init(task), 0)  # type: ignore[arg-type]
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with warnings.catch_warnings(record=True) as seen:
                    warnings.simplefilter("always")
                    method.step(task, state, 1)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            counts.append(f"{method.name} {sum('synchroniz' in str(one.message) for one in seen)}")
        return f"times in a step: {', '.join(counts)}"

    def commands(self) -> list[list[str]]:
        """One for each verb, in an order in which later ones find what they need."""
        on, tests = ["--device", self.device], ["--trials", "2", "--epochs", "2", "--networks", SMALL]
        return [
            ["condense", "digits", "--ipc", "1", "--iterations", "2", "--network", SMALL, "--out", "a", *on],
            ["estimate", "digits", "--ipc", "1", *on],
            ["evaluate", "a", *tests, *on],
            ["compare", "a", "digits-ipc1", *tests, *on],
            ["relabel", "a", "--out", "soft", "--networks", "1", "--epochs", "1", "--network", SMALL, *on],
            ["report", "a", "--out", "a.html", *tests, *on],
            ["show", "a", "--out", "a.png"],
            ["paper", "table1", "--scale", "quick", "--dry-run", *on],
            ["export", "digits-ipc10", "--to", "folder", "--out", "pictures"],
            ["import", "pictures", "--data", "digits", "--out", "b"],
            ["continual", "--tasks", "digits", "pictures", "--memory", "1", "--iterations", "2",
             "--updates", "2", "--fine-tuning-epochs", "1", "--trials", "1", "--network", SMALL, *on],
            ["search", "digits", "--proxies", "random", "--trials", "2", "--sample", "2", "--top", "1",
             "--epochs", "1", "--whole-updates", "1", "--sampler", "random", "--ipc", "1", *on],
            ["list", "--sets"],
            ["doctor"],
            ["benchmark", "--repeats", "1", *on],
        ]  # fmt: skip

    def verb(self, words: list[str]) -> str:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main(words)
        if status:
            raise Failed(f"status {status}: {said.getvalue().strip().splitlines()[-1]}")
        return said.getvalue() if words[0] in ("doctor", "benchmark") else "status 0"


def short(kind: type[dc.Method]) -> dc.Method:
    """The method with settings that make it short."""
    return kind(**{field.name: SHORT[field.name] for field in fields(kind) if field.name in SHORT})


def verdict(good: bool, found: str) -> str:
    """`found`, raised where it is not good."""
    if not good:
        raise Failed(found)
    return found


def close(there: dc.CondensedDataset, here: dc.CondensedDataset) -> str:
    """By how much images differ from what is expected."""
    difference = float((there.images - here.images).norm() / here.images.norm())
    return verdict(difference < CLOSE, f"images differ by {difference:.1e} of their norm")


def run(device: str = "cuda", only: tuple[str, ...] = ()) -> int:
    """The checks of a device; returns how many failed.

    Args:
        device: cuda, cuda:1, mps, cpu.
        only: the checks to make, by the first letters of their names, such as method or "verb condense".
    """
    checks, failures = Checks(device).all, 0
    assert {name.split()[1] for name in checks if name.startswith("verb ")} == set(VERBS)
    checks = {name: check for name, check in checks.items() if name.startswith(only or "")}
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, check in checks.items():
            started = time.perf_counter()
            try:
                result, found = "ok", check()
            except Failed as failed:
                result, found = "FAILED", str(failed)
            except Exception:  # whatever it is, the other checks are worth doing
                result, found = "FAILED", traceback.format_exc()
            failures += result != "ok"
            print(f"{result:7}{name:30}{time.perf_counter() - started:6.1f} s  {found}", flush=True)
    print(f"{len(checks) - failures} of {len(checks)} checks passed")
    return failures


if __name__ == "__main__":
    DIGITS = dc.load_dataset("digits")
    sys.exit(min(1, tyro.cli(run)))
