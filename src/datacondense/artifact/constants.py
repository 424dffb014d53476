"""Means and standard deviations by which published code normalises; ours are measured on real images."""

from __future__ import annotations

#: Per channel, mean and standard deviation.
Statistics = tuple[tuple[float, ...], tuple[float, ...]]

_CIFAR: Statistics = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: By dataset, as DC, DSA, DM (VICO-UoE/DatasetCondensation, utils.py) have them; IDC, MTT and others agree.
PUBLISHED: dict[str, Statistics] = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": _CIFAR,
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": _IMAGENET,
}
#: IDC, DREAM, MTT and DD-Ranking normalise CIFAR-100 with the constants of CIFAR-10.
CIFAR100_OF_OTHERS = _CIFAR

#: What DD-Ranking evaluates (ddranking/utils/data.py of version 0.2.0): our name without its underscore →
#: its name, the side of its images, its constants.
DD_RANKING: dict[str, tuple[str, int, Statistics]] = {
    "cifar10": ("CIFAR10", 32, _CIFAR),
    "cifar100": ("CIFAR100", 32, _CIFAR),
    "tinyimagenet": ("TinyImageNet", 64, _IMAGENET),
    "imagenet1k": ("ImageNet1K", 224, _IMAGENET),
} | {
    name.lower(): (name, 128, _IMAGENET)
    for name in ("ImageNette", "ImageWoof", "ImageFruit", "ImageYellow", "ImageMeow", "ImageSquawk")
}
