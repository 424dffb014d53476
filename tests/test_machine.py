"""Randomness, machine settings and provenance: small promises that everything stands on."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from conftest import toy_dataset
from datacondense import (
    ConvNet,
    GradientMatching,
    Learner,
    Machine,
    UsageError,
    condense,
    evaluate,
    load_dataset,
)
from datacondense.experiments.benchmark import plain_gradient, plain_image_gradient
from datacondense.machine.calibration import Calibration, MicroBatch, best_size, measure
from datacondense.machine.processor import hardware
from datacondense.machine.provenance import provenance
from datacondense.methods import Task
from datacondense.randomness import global_stream, stream

pytestmark = pytest.mark.usefixtures("untouched_random_state")

names = st.tuples(st.integers(0, 5), st.sampled_from(["weights", "order"]), st.lists(st.integers(0, 3)))


@given(names, names)
def test_streams_are_equal_exactly_when_their_names_are(one, other) -> None:
    drawn = [torch.rand(4, generator=stream(seed, purpose, *at)) for seed, purpose, at in (one, other)]
    assert torch.equal(*drawn) == (one == other)


def test_global_stream_is_the_stream_and_restores_the_state_even_after_an_error() -> None:
    def fail_inside() -> None:
        with global_stream(3, "weights", 1):
            torch.rand(7)
            raise KeyError

    before = torch.get_rng_state()
    with global_stream(3, "weights", 1):
        drawn = torch.rand(4)
    assert torch.equal(drawn, torch.rand(4, generator=stream(3, "weights", 1)))
    with pytest.raises(KeyError):
        fail_inside()
    assert torch.equal(torch.get_rng_state(), before)


def test_fresh_networks_depend_on_seed_and_step_only(exact: Machine, toy) -> None:
    def weights(seed: int, k: int) -> torch.Tensor:
        task = Task(toy, 1, ConvNet(width=3, depth=1), seed, exact)
        return nn.utils.parameters_to_vector(task.fresh_learner(k).module.parameters())

    assert torch.equal(weights(0, 2), weights(0, 2))
    assert not torch.equal(weights(0, 2), weights(0, 3))
    assert not torch.equal(weights(0, 2), weights(1, 2))


def test_an_existing_module_keeps_its_weights(exact: Machine) -> None:
    learner = Learner.of(nn.utils.skip_init(nn.Linear, 2, 2), exact)
    with pytest.raises(UsageError, match="an existing module has its weights"):
        learner.draw()


def test_bfloat16_keeps_the_direction_of_the_gradient() -> None:
    machine = Machine(torch.device("cpu"), "bfloat16", micro_batch=8)
    task = Task(toy_dataset(), 1, ConvNet(width=16, depth=2), 0, machine)
    learner = task.learner(0)
    for c in range(3):
        real = task.real_batch(c, 256, 0)
        labels = torch.full((len(real),), c)
        plain = torch.cat([g.flatten() for g in plain_gradient(learner.module, real, labels)])
        reduced = learner.gradient(real, c)
        assert all(g.dtype == torch.float32 for g in reduced)
        assert torch.cosine_similarity(plain, torch.cat([g.flatten() for g in reduced]), 0) > 0.99
        noise, own = torch.randn(2, 1, 8, 8, generator=stream(c, "noise")), labels[:2]
        expected = plain_image_gradient(learner.module, noise, own, reduced)
        _, found = learner.match(noise, own, reduced)
        assert found.dtype == torch.float32
        assert 0.99 < torch.cosine_similarity(expected.flatten(), found.flatten(), 0) < 0.999999


@pytest.mark.slow
def test_reduced_precision_condenses_as_well() -> None:
    """End to end on the real digits: bfloat16 scores what float32 scores, up to the noise of the runs."""
    real, network = load_dataset("digits"), ConvNet(width=24, depth=2)
    scores = []
    for precision in ("float32", "bfloat16"):
        machine = Machine(torch.device("cpu"), precision, micro_batch=32)
        method = GradientMatching(iterations=10, real_batch=32)
        condensed = condense(real.train, 1, method, network, machine=machine)
        scores.append(evaluate(condensed, real.test, network, trials=3, machine=machine).mean)
    assert min(scores) > 0.4  # chance is 0.1
    assert abs(scores[0] - scores[1]) < 0.06


@pytest.mark.slow
def test_detection_takes_what_is_given_and_names_what_is_not_there() -> None:
    machine = Machine.detect("cpu", "float32")
    assert (machine.device.type, machine.precision) == ("cpu", "float32")
    assert Machine.detect("cpu").precision in ("bfloat16", "float32")
    with pytest.raises(UsageError, match="unknown device 'nonsense'"):
        Machine.detect("nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="device 'cuda' cannot be used here"):
            Machine.detect("cuda")


def test_apples_gpu_is_taken_where_it_can_compute_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    measured = []

    def calibration(device: torch.device) -> Calibration:
        measured.append(device)
        return Calibration(bfloat16=True, micro_batch=8)

    monkeypatch.setattr("datacondense.machine.settings.calibration", calibration)
    found = Machine.detect()
    assert (found.device.type, found.precision, found.micro_batch) == ("mps", "bfloat16", None)
    assert measured == [found.device]
    assert not found.for_work(10**9, 32, 32).compile  # the compiler is not ready for it
    assert Machine.detect(precision="float64").device.type == "cpu"
    assert hardware(found.device) != hardware(torch.device("cpu"))  # each remembers its own measurement


@pytest.mark.parametrize(
    ("one", "many", "chosen"),
    [(1.0, 0.5, True), (3.0, 0.7, True), (1.0, 0.9, False), (1.0, 2.0, False), (30.0, None, False)],
)
def test_bfloat16_must_be_clearly_faster_and_emulated_it_is_tried_on_one_image_alone(
    one: float, many: float | None, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds per image, of one and of many at once, where float32 takes 1."""

    def seconds(device: torch.device, dtype: torch.dtype, size: int) -> float:
        if dtype == torch.float32:
            return 1.0
        taken = one if size == 1 else many
        assert taken is not None, "it would take long"
        return taken

    monkeypatch.setattr("datacondense.machine.calibration._seconds_per_image", seconds)
    assert measure(torch.device("cpu")) == Calibration(bfloat16=chosen, micro_batch=32)


@pytest.mark.slow
def test_bfloat16_is_not_chosen_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = F.conv2d

    def only_float32(images: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        if images.dtype != torch.float32:
            raise TypeError("no such numbers here")
        return plain(images, *args, **kwargs)

    monkeypatch.setattr(F, "conv2d", only_float32)
    assert not measure(torch.device("cpu")).bfloat16


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({8: 1.0, 16: 1.0, 32: 1.0, 64: 1.0}, 32),
        ({8: 0.98, 16: 1.02, 32: 1.0, 64: 0.95}, 32),  # noise
        ({8: 0.8, 16: 1.1, 32: 1.2, 64: 1.3}, 8),  # a small cache
        ({8: 1.3, 16: 1.1, 32: 1.0, 64: 0.8}, 64),  # a large one
    ],
)
def test_pieces_are_of_the_size_that_the_cache_holds_best(
    seconds: dict[MicroBatch, float], expected: int
) -> None:
    assert best_size(seconds) == expected


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc")
def test_memory_of_a_large_tensor_is_used_again_once_a_network_is_placed() -> None:
    # In a process of its own: where earlier tests have kept a free block of this size, it is never returned.
    program = """if True:
        import resource, torch
        from datacondense.machine import Machine

        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(2**24)  # 64 MiB: 16,384 pages, or 32 huge ones
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        print(min(faults() for _ in range(8)))
        Machine(torch.device("cpu"), "float32", None).place(torch.nn.Identity())
        print(min(faults() for _ in range(8)))  # the smallest: the first has no free block to take yet
        """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    returned, kept = map(int, done.stdout.split())
    assert kept < 32 <= returned


@pytest.mark.slow
def test_provenance_names_what_a_number_needs() -> None:
    found = provenance(Machine.detect("cpu", "float32"))
    assert found["versions"]["torch"] == torch.__version__
    assert "threads" in found["hardware"]
    assert found["command"]


@pytest.mark.slow
def test_the_commit_is_that_of_the_source_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(of: Path) -> str | None:
        monkeypatch.setattr("datacondense.machine.provenance.__file__", str(of / "machine" / "provenance.py"))
        return provenance(Machine(torch.device("cpu"), "float32", micro_batch=None))["commit"]

    def git(*words: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        done = subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)
        return done.stdout.decode().strip()

    source, installed = tmp_path / "src" / "package", tmp_path / ".venv" / "package"
    for folder in (source, installed):
        (folder / "machine").mkdir(parents=True)
        (folder / "__init__.py").touch()
    (tmp_path / ".gitignore").write_text(".venv\n")
    (result := tmp_path / "result.json").touch()
    assert commit(source) is None, "no repository"
    git("init")
    assert commit(source) is None, "nothing is committed"
    git("add", ".")
    git("commit", "-m", "all")
    clean = git("rev-parse", "HEAD")[:12]
    assert commit(source) == clean
    result.unlink()
    assert commit(source) == clean, "a result is not the source"
    assert commit(installed) is None, "a repository of something else"
    (new := source / "new.py").touch()
    assert commit(source) == f"{clean}-dirty"
    new.unlink()
    (source / "__init__.py").write_text("changed = True")
    assert commit(source) == f"{clean}-dirty"


def test_any_image_size_and_channel_count_condenses(tiny_network: ConvNet) -> None:
    machine = Machine(torch.device("cpu"), "float32", micro_batch=None)
    for channels in (1, 2, 3):
        data, method = toy_dataset(channels=channels), GradientMatching(iterations=1, network_epochs=1)
        condensed = condense(data, 2, method, tiny_network, machine=machine)
        assert condensed.images.shape == (6, channels, 8, 8)
