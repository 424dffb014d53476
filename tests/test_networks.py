"""Networks: sizes, shapes, names, and BatchNorm statistics."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from datacondense.errors import UsageError
from datacondense.networks import (
    MLP,
    NETWORKS,
    VGG11,
    AlexNet,
    AlexNetDD,
    Architecture,
    ConvNet,
    LeNet,
    ResNet18,
    describe_network,
    freeze_batchnorm,
    parse_network,
    split_networks,
)
from datacondense.networks.base import Activation, Norm, Pooling, norm_layer

PARAMETERS = [  # 10 classes at 3×32×32 and 1×28×28, as the reference code has them
    (ConvNet(), 320_010, 317_706),
    (MLP(), 411_146, 118_282),
    (LeNet(), 62_006, 61_706),
    (AlexNet(), 1_872_202, 1_865_802),
    # 5·5·3·64 + 64, 5·5·64·64 + 64, 8·8·64·384 + 384, 384·192 + 192, 192·10 + 10; grey: 5·5·2·64 fewer
    (AlexNetDD(), 4_864 + 102_464 + 1_573_248 + 73_920 + 1_930, 1_753_226),
    (VGG11(), 9_231_114, 9_229_962),
    (VGG11(norm="batch"), 9_231_114, 9_229_962),
    (ResNet18(), 11_173_962, 11_172_810),
    (ResNet18(norm="batch"), 11_173_962, 11_172_810),
    (ResNet18(norm="batch", downsampling="average"), 11_250_762, 11_213_770),
]
SHAPES = [(1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32), (3, 64, 64), (3, 32, 48), (1, 28, 40)]


@pytest.fixture(scope="module", autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(("network", "colour", "grey"), PARAMETERS)
def test_parameter_counts_are_those_of_the_paper(network: Architecture, colour: int, grey: int):
    for shape, expected in (((3, 32, 32), colour), ((1, 28, 28), grey)):
        with torch.device("meta"):
            module = network(shape, 10)
        assert sum(parameter.numel() for parameter in module.parameters()) == expected


# Forward passes on the meta device compute shapes only: every network and size in a second.
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_network_takes_every_size(name: str, shape: tuple[int, int, int]):
    with torch.device("meta"):
        module = NETWORKS[name](shape, 7)
        assert module(torch.zeros(2, *shape)).shape == (2, 7)
    assert isinstance(module[-1], nn.Linear)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_finite_scores_that_depend_on_the_image(name: str):
    module = NETWORKS[name]((1, 28, 28), 3).eval()
    with torch.no_grad():
        scores = module(torch.randn(2, 1, 28, 28))
    assert scores.shape == (2, 3)
    assert scores.isfinite().all()
    assert not torch.equal(scores[0], scores[1])


@pytest.mark.parametrize("name", ["convnet", "mlp", "alexnet"])
def test_images_of_8x8_are_enough_for(name: str):
    module = NETWORKS[name]((1, 8, 8), 10)
    scores = module(torch.randn(2, 1, 8, 8))
    assert scores.shape == (2, 10)
    assert not torch.equal(scores[0], scores[1])


@pytest.mark.parametrize(
    ("network", "refused", "smallest"),
    [
        (LeNet(), (8, 8), (9, 9)),
        (VGG11(), (24, 32), (25, 25)),
        (ResNet18(), (8, 8), (9, 8)),
        (ResNet18(downsampling="average"), (8, 15), (16, 8)),
        (ResNet18(norm="batch", downsampling="average"), (7, 32), (8, 16)),
        (ConvNet(depth=4), (8, 8), (9, 9)),
    ],
)
def test_too_small_images_are_refused(
    network: Architecture, refused: tuple[int, int], smallest: tuple[int, int]
):
    with torch.device("meta"):
        with pytest.raises(UsageError, match=f"found images of {refused[0]}×{refused[1]}; .*(needs?|use) "):
            network((3, *refused), 10)
        assert network((3, *smallest), 10)(torch.zeros(2, 3, *smallest)).shape == (2, 10)


def test_convnet_names_the_depth_that_fits():
    with pytest.raises(UsageError, match="4 poolings leave nothing; use depth 3 or less, or pooling 'none'"):
        ConvNet(depth=4)((1, 8, 8), 10)
    assert ConvNet(width=4, depth=4, pooling="none")((1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("size", "depth"),
    [((8, 8), 1), ((16, 16), 2), ((28, 28), 3), ((32, 32), 3), ((64, 64), 4), ((96, 96), 4), ((128, 128), 5),
     ((224, 224), 5), ((1, 200), 1)],
)  # fmt: skip
def test_the_depth_fits_the_image_size_unless_it_is_given(size: tuple[int, int], depth: int):
    def convolutions(network: ConvNet) -> int:
        module = network((1, *size), 3)
        assert module(torch.zeros(2, 1, *size)).shape == (2, 3)
        return sum(isinstance(layer, nn.Conv2d) for layer in module)

    assert convolutions(ConvNet(width=2)) == depth
    assert ConvNet().fitted((1, *size)) == ConvNet(depth=depth)
    assert convolutions(ConvNet(width=2, depth=2)) == 2
    assert ConvNet(depth=2).fitted((1, *size)) == ConvNet(depth=2)


def settings_of_search() -> list[ConvNet]:
    norms, activations, poolings = (choice.__args__ for choice in (Norm, Activation, Pooling))
    return [
        ConvNet(width, depth, activation, norm, pooling)
        for depth, width, norm, activation, pooling in product(
            range(1, 5), (32, 64, 128, 256), norms, activations, poolings
        )
    ]


@pytest.mark.slow
def test_the_search_space_has_720_convnets():
    networks = settings_of_search()
    assert len(set(networks)) == 720
    with torch.device("meta"):
        for network in networks[::7]:
            assert network((3, 32, 32), 10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_convnet_at_28_is_a_first_convolution_with_padding_3(channels: int):
    ours = ConvNet(width=6)((channels, 28, 28), 10).double()
    _, *layers = ours  # all but the padding of the image
    first = layers[0]
    assert isinstance(first, nn.Conv2d)
    wide = nn.Conv2d(channels, 6, 3, padding=3).double()
    wide.load_state_dict(first.state_dict())
    images = torch.randn(4, channels, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(ours(images), nn.Sequential(wide, *layers[1:])(images), rtol=0, atol=1e-12)


def test_norms_normalise_over_what_their_names_say():
    maps = 3 + 2 * torch.randn(5, 8, 4, 6, dtype=torch.float64)
    grouped = maps.view(5, 4, 2, 4, 6)
    views = {  # name: (view, what is normalised together)
        "batch": (maps, (0, 2, 3)),
        "layer": (maps, (1, 2, 3)),
        "instance": (maps, (2, 3)),
        "group": (grouped, (2, 3, 4)),
    }
    for norm, (view, together) in views.items():
        mean = view.mean(together, keepdim=True)
        variance = view.var(together, correction=0, keepdim=True)
        expected = ((view - mean) / (variance + 1e-5).sqrt()).view_as(maps)
        torch.testing.assert_close(norm_layer(norm, 8, 4, 6).double()(maps), expected)
    assert norm_layer("layer", 8, 4, 6).weight.shape == (8, 4, 6)
    assert norm_layer("none", 8, 4, 6)(maps) is maps


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width is 0; expected a whole number of at least 1"),
        ({"depth": 1001}, "ConvNet: depth is 1001; expected 1000 or less"),
        ({"norm": "batchnorm"}, "norm of ConvNet 'batchnorm'; did you mean 'batch'"),
        ({"norm": "group", "width": 6}, "width is 6; norm 'group' has 4 groups, so use a multiple of 4"),
    ],
)
def test_convnet_refuses_settings(settings: dict[str, int | str], message: str):
    with pytest.raises(UsageError, match=message):
        ConvNet(**settings)


def test_building_draws_from_the_global_generator_only():
    for network in (ConvNet(width=8), LeNet()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            first = network((1, 16, 16), 2).state_dict()
            torch.manual_seed(3)
            second = network((1, 16, 16), 2).state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)


# BatchNorm


def batchnorm_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.9), nn.Flatten(), nn.LazyLinear(2)
    )


def test_freezing_takes_the_statistics_of_the_batch():
    network, images = batchnorm_network(), 2 + 3 * torch.randn(6, 3, 8, 8)
    network(images)
    for batch in (images, 5 * images):  # the second call replaces the first
        network.train()
        freeze_batchnorm(network, [batch])
        maps, norm = network[0](batch), network[1]
        torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)))
        torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3)))
        assert not any(module.training for module in network.modules())
        assert norm.momentum == 0.3
    assert all(parameter.grad is None for parameter in network.parameters())
    frozen = norm.running_mean.clone()
    network(images)
    assert torch.equal(norm.running_mean, frozen)


def test_freezing_reaches_every_batchnorm_with_the_others_in_eval_mode():
    network = ConvNet(width=4, norm="batch")((1, 16, 16), 2)
    images = torch.randn(8, 1, 16, 16)
    freeze_batchnorm(network, [images])
    maps = images
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            torch.testing.assert_close(layer.running_mean, maps.mean((0, 2, 3)))
            layer.train()  # what the next layer saw: normalised by the batch
        maps = layer(maps)


def test_freezing_averages_the_statistics_of_several_batches():
    network, batches = batchnorm_network(), [torch.randn(4, 3, 8, 8), 2 + 3 * torch.randn(4, 3, 8, 8)]
    network(batches[0])
    freeze_batchnorm(network, batches)
    maps = [network[0](batch) for batch in batches]
    means, variances = ([getattr(m, of)((0, 2, 3)) for m in maps] for of in ("mean", "var"))
    torch.testing.assert_close(network[1].running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(network[1].running_var, torch.stack(variances).mean(0))


def test_freezing_without_batchnorm_is_eval_only():
    class NotToBeCalled(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise AssertionError

    network = nn.Sequential(NotToBeCalled(), nn.BatchNorm2d(3, track_running_stats=False))
    freeze_batchnorm(network, [torch.zeros(1, 3, 8, 8)])
    assert not any(module.training for module in network.modules())


# Names


@given(
    st.sampled_from(
        [*settings_of_search(), *NETWORKS.values(), MLP(width=7), ResNet18(downsampling="average")]
    )
)
def test_descriptions_are_read_back(network: Architecture):
    assert parse_network(describe_network(network)) == network


@pytest.mark.parametrize(
    ("spec", "network", "shortest"),
    [
        ("convnet", ConvNet(), "convnet"),
        ("convnet()", ConvNet(), "convnet"),
        (
            " convnet( norm = batch , depth = 2 ) ",
            ConvNet(depth=2, norm="batch"),
            "convnet(depth=2,norm=batch)",
        ),
        (
            "convnet(activation=leaky-relu)",
            ConvNet(activation="leaky-relu"),
            "convnet(activation=leaky-relu)",
        ),
        ("vgg11(norm=batch)", VGG11(norm="batch"), "vgg11-bn"),
        ("resnet18-bn(downsampling=average)", ResNet18("batch", "average"), "resnet18-bn-ap"),
    ],
)
def test_names_with_settings(spec: str, network: Architecture, shortest: str):
    assert parse_network(spec) == network
    assert describe_network(network) == shortest


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("convnt", "unknown network 'convnt'; did you mean 'convnet'"),
        ("", "unknown network ''"),
        ("convnet(dept=2)", "unknown setting of convnet 'dept'; did you mean 'depth'"),
        ("convnet(depth=two)", "ConvNet: depth is 'two'; expected a whole number"),
        ("convnet(depth=-1)", "ConvNet: depth is -1; expected a whole number"),
        ("convnet(norm=3)", "unknown norm of ConvNet '3'"),
        ("convnet(pooling=avg)", "unknown pooling of ConvNet 'avg'"),
        ("convnet(depth)", "cannot read 'depth' in the settings of convnet; expected setting=value"),
        ("convnet(depth=1,depth=2)", "'depth' of convnet is given twice"),
        ("lenet(width=3)", "network 'lenet' has no settings"),
        ("convnet(depth=2", "cannot read network"),
        ("convnet(norm:batch)", "cannot read 'norm:batch'"),
    ],
)
def test_misspelt_networks(spec: str, message: str):
    with pytest.raises(UsageError) as caught:
        parse_network(spec)
    assert message in str(caught.value)


def test_lists_are_split_outside_parentheses():
    spec = "convnet, convnet(depth=2,norm=batch),lenet,mine:net"
    assert split_networks(spec) == ["convnet", "convnet(depth=2,norm=batch)", "lenet", "mine:net"]
    assert split_networks("mlp") == ["mlp"]
