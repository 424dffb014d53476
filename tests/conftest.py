"""Fixtures for all tests: tiny images, exact arithmetic, no network access, a guarded random state."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DATACONDENSE_CACHE"] = tempfile.mkdtemp(prefix="datacondense-tests-")
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start: several run beside each other

import hypothesis
import jaxtyping
import pytest
import torch

from datacondense import ConvNet, ImageDataset, Machine

# A machine that is busy is no fault. `pytest --hypothesis-profile=long -k fuzz` looks for faults for long.
hypothesis.settings.register_profile("usual", deadline=None)
hypothesis.settings.register_profile("long", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile("usual")
# Started in the background of a shell, we and the processes that tests start would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def same_start() -> None:
    """Each test starts alike, whatever ran before it in its process: the same draws, one thread."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # tests are small and run in several processes


@pytest.fixture
def untouched_random_state() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before), "the global random state was touched"


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """What users run: without the type checks that pytest turns on, which compilation cannot follow."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def exact() -> Machine:
    return Machine(torch.device("cpu"), "float64", micro_batch=3)


@pytest.fixture
def tiny_network() -> ConvNet:
    return ConvNet(width=4, depth=2)


@pytest.fixture
def toy() -> ImageDataset:
    return toy_dataset()


@pytest.fixture
def in_files(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, in which all images are put into files."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DATACONDENSE_CACHE", str(folder))
    monkeypatch.setenv("DATACONDENSE_MEMORY", "0")
    return folder


def peak_tensor_bytes(run: Callable[[], object]) -> int:
    """The most bytes that tensors made while `run` ran held at one time."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        run()
    changes = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in changes))


def toy_dataset(n: int = 60, classes: int = 3, channels: int = 1, seed: int = 0) -> ImageDataset:
    """Noisy 8×8 images with a bright row whose position tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = torch.randint(0, 100, (n, channels, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(n), :, 2 * labels + 1] += 120
    return ImageDataset.create(images, labels, [f"row {c}" for c in range(classes)], name="toy")
