"""Networks of the user: found, built, checked; and ours, where they are too large."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from datacondense.errors import UsageError
from datacondense.networks import MLP, ConvNet, build_network, describe_network, parse_network

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def module_in(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write `code` as module `name` where the import system looks for the user's code."""
    (folder / f"{name}.py").write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


USER_CODE = """
from torch import nn
from datacondense.networks import ConvNet

def net(image_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))

class Net(nn.Linear):
    def __init__(self, image_shape, classes):
        super().__init__(image_shape[2], classes)
    def forward(self, images):
        return super().forward(images.mean((1, 2)))

narrow = ConvNet(width=8)
number = 3
"""


def test_networks_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = module_in(tmp_path, "user_networks", USER_CODE, monkeypatch)
    for attribute in ("net", "Net"):
        network = parse_network(f"{name}:{attribute}")
        assert describe_network(network) == f"{name}:{attribute}"
        assert build_network(network, (1, 8, 8), 3)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert parse_network(f"{name}:narrow") == ConvNet(width=8)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module_here:net", "cannot import module 'no_such_module_here'"),
        ("user_networks:nett", "unknown name in module user_networks 'nett'; did you mean 'net'"),
        ("user_networks:number", "is of type int; expected a function or class"),
        ("user_networks:", "unknown name in module user_networks ''"),
        (":net", "cannot import module ''"),
    ],
)
def test_networks_of_the_user_that_cannot_be_found(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module_in(tmp_path, "user_networks", USER_CODE, monkeypatch)
    with pytest.raises(UsageError) as caught:
        parse_network(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("code", "error"), [("1 / 0", "ZeroDivisionError"), ("import sys; sys.exit(0)", "SystemExit: 0")]
)
def test_a_broken_module_is_named(code: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = module_in(tmp_path, f"broken_by_{error[:4]}", code, monkeypatch)
    with pytest.raises(UsageError, match=f"cannot import module '{name}': {error}"):
        parse_network(f"{name}:net")


class Leaves(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        sys.exit(0)


class Gives(nn.Linear):
    """A network of 8×8 images whose scores are multiplied by `factor`."""

    def __init__(self, factor: float | torch.Tensor) -> None:
        super().__init__(64, 3)
        self.factor = factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.flatten(1)) * self.factor


def test_a_network_too_large_for_the_machine_is_not_drawn(untouched_random_state: None):
    for width in (10**9, 10**30):
        with pytest.raises(
            UsageError, match=rf"'convnet\(width={width}\)' would need .* GiB for its weights"
        ):
            build_network(ConvNet(width=width), (1, 28, 28), 10)


def test_measuring_a_network_draws_nothing():
    torch.manual_seed(1)
    first = build_network(MLP(width=11), (1, 5, 5), 3)
    torch.manual_seed(1)
    again = build_network(MLP(width=11), (1, 5, 5), 3)  # measured already
    assert torch.equal(first[1].weight, again[1].weight)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda image_shape, classes: 3, r"built int; expected a torch\.nn\.Module"),
        (lambda image_shape, classes: nn.Flatten(), r"gives \(2, 64\) for two .* 1×8×8; expected \(2, 3\)"),
        (lambda image_shape, classes: nn.Linear(5, classes), "fails on two images of 1×8×8: RuntimeError"),
        (lambda image_shape, classes: nn.LSTM(8, 3), "fails on two images of"),
        (nn.Linear, r"cannot be built from \(\(1, 8, 8\), 3\): TypeError"),
        (lambda image_shape, classes: sys.exit(0), "cannot be built from .*: SystemExit: 0"),
        (lambda image_shape, classes: Leaves(), "fails on two images of 1×8×8: SystemExit: 0"),
        (
            lambda image_shape, classes: Gives(math.nan),
            "gives NaN or infinite scores for two images of 1×8×8",
        ),
        (lambda image_shape, classes: Gives(1).requires_grad_(False), "has no parameters to train"),
        (lambda image_shape: nn.Flatten(), "cannot be called with .* too many positional arguments"),
        (nn.Flatten(), "found one Flatten as network; expected a function or class"),
    ],
)
def test_networks_that_break_the_contract(network: Callable[..., object], message: str):
    with pytest.raises(UsageError, match=message):
        build_network(network, (1, 8, 8), 3)


def test_the_check_leaves_no_trace():
    def network(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        return nn.Sequential(
            nn.BatchNorm2d(image_shape[0]), nn.Dropout().eval(), nn.Flatten(), nn.LazyLinear(classes)
        )

    module = build_network(network, (1, 8, 8), 3)
    assert [part.training for part in module] == [True, False, True, True]
    assert module[0].num_batches_tracked == 0
    assert module[0].running_var.eq(1).all()
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
