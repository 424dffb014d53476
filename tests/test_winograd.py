"""Winograd's convolution against the direct one: values, derivatives, and which convolutions it takes over."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import jvp
from torch.nn import functional as F

from datacondense.machine import winograd as module
from datacondense.machine.winograd import convolve, winograd


def direct(images: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    return F.conv2d(images, filters, padding=1)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_it_is_the_direct_convolution(n: int, c: int, o: int, rows: int, columns: int) -> None:
    images = torch.randn(n, c, 4 * rows, 4 * columns, dtype=torch.float64)
    filters = torch.randn(o, c, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(convolve(images, filters), direct(images, filters), rtol=1e-11, atol=1e-11)


def test_its_derivatives_are_those_of_the_direct_one() -> None:
    images = torch.randn(2, 3, 8, 4, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convolve, (images, filters), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(convolve, (images, filters))
    tangents = torch.randn_like(images), torch.randn_like(filters)
    along = [jvp(f, (images, filters), tangents)[1] for f in (convolve, direct)]
    torch.testing.assert_close(*along)


def test_float32_rounds_to_a_hundred_thousandth() -> None:
    images, filters = torch.randn(4, 128, 16, 16), torch.randn(64, 128, 3, 3)
    exact = direct(images.double(), filters.double())
    assert (convolve(images, filters) - exact).abs().max() < 3e-5 * exact.abs().max()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of the images that Winograd's convolution is asked for."""
    shapes: list[torch.Size] = []

    def convolve_and_tell(images: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        shapes.append(images.shape)
        return convolve(images, filters)

    monkeypatch.setattr(module, "convolve", convolve_and_tell)
    return shapes


def test_a_layer_that_fits_is_taken_over(taken: list[torch.Size]) -> None:
    layer, images = nn.Conv2d(64, 96, 3, padding=1), torch.randn(2, 64, 8, 4)
    with winograd():
        found = layer(images)
    assert taken == [images.shape]
    torch.testing.assert_close(found, layer(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "images"),
    [
        pytest.param(nn.Conv2d(64, 64, 3, padding=1), torch.randn(2, 64, 6, 8), id="sides not in fours"),
        pytest.param(nn.Conv2d(63, 64, 3, padding=1), torch.randn(2, 63, 8, 8), id="few channels"),
        pytest.param(nn.Conv2d(64, 63, 3, padding=1), torch.randn(2, 64, 8, 8), id="few filters"),
        pytest.param(nn.Conv2d(64, 64, 3), torch.randn(2, 64, 8, 8), id="no padding"),
        pytest.param(nn.Conv2d(64, 64, 3, 2, padding=1), torch.randn(2, 64, 8, 8), id="stride"),
        pytest.param(nn.Conv2d(64, 64, 3, padding=1, dilation=2), torch.randn(2, 64, 8, 8), id="dilation"),
        pytest.param(nn.Conv2d(128, 128, 3, padding=1, groups=2), torch.randn(2, 128, 8, 8), id="groups"),
        pytest.param(nn.Conv2d(64, 64, 5, padding=2), torch.randn(2, 64, 8, 8), id="5×5"),
        pytest.param(nn.Conv2d(64, 64, 3, padding="same"), torch.randn(2, 64, 8, 8), id="padding by name"),
        pytest.param(nn.Conv2d(64, 64, 3, padding=1), torch.randn(64, 8, 8), id="no batch"),
        pytest.param(
            nn.Conv2d(64, 64, 3, padding=1).double(), torch.randn(2, 64, 8, 8).double(), id="float64"
        ),
    ],
)
def test_others_are_left_as_they_are(layer: nn.Conv2d, images: torch.Tensor, taken: list[torch.Size]) -> None:
    expected = layer(images)
    with winograd():
        assert torch.equal(layer(images), expected)
    assert not taken


def test_reduced_precision_is_left_as_it_is(taken: list[torch.Size]) -> None:
    layer, images = nn.Conv2d(64, 64, 3, padding=1), torch.randn(2, 64, 8, 8)
    with winograd(), torch.autocast("cpu", torch.bfloat16):
        assert layer(images).dtype == torch.bfloat16
    assert not taken
