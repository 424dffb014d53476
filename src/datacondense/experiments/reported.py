"""The paper's numbers: test accuracies in percent, as printed there. The only copy."""

from __future__ import annotations

from dataclasses import dataclass

NOT_REPORTED = "–"


@dataclass(frozen=True)
class Reported:
    """A number of the paper, in percent."""

    mean: float
    std: float | None = None
    """None where it was read off a plot, to about ±0.3."""

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


#: (row, column) → the number; positions of which the paper says nothing are left out.
Grid = dict[tuple[str, str], Reported]


def _grid(text: str) -> Grid:
    """A table written as lines: the columns' names first, then rows of a name and the numbers."""
    columns, *rows = (line.split() for line in text.strip().splitlines())
    return {
        (row, column): _number(word)
        for row, *words in rows
        for column, word in zip(columns, words, strict=True)
        if word != NOT_REPORTED
    }


def _number(word: str) -> Reported:
    mean, _, std = word.partition("±")
    return Reported(float(mean), float(std) if std else None)


#: ConvNet. The accuracy of the whole set, which has no ipc, is in the rows of ipc 1.
TABLE1 = _grid("""
                      random    herding   k-center  forgetting  gradient-matching  whole
    mnist-ipc1          64.9±3.5  89.2±1.6  89.3±1.5  35.5±5.6    91.7±0.5           99.6±0.0
    mnist-ipc10         95.1±0.9  93.7±0.3  84.4±1.7  68.1±3.3    97.4±0.2           –
    mnist-ipc50         97.9±0.2  94.9±0.2  97.4±0.3  88.2±1.2    98.8±0.2           –
    fashion_mnist-ipc1  51.4±3.8  67.0±1.9  66.9±1.8  42.0±5.5    70.5±0.6           93.5±0.1
    fashion_mnist-ipc10 73.8±0.7  71.1±0.7  54.7±1.5  53.9±2.0    82.3±0.4           –
    fashion_mnist-ipc50 82.5±0.7  71.9±0.8  68.3±0.8  55.0±1.1    83.6±0.4           –
    svhn-ipc1           14.6±1.6  20.9±1.3  21.0±1.5  12.1±1.7    31.2±1.4           95.4±0.1
    svhn-ipc10          35.1±4.1  50.5±3.3  14.0±1.3  16.8±1.2    76.1±0.6           –
    svhn-ipc50          70.9±0.9  72.6±0.8  20.1±1.4  27.2±1.5    82.3±0.3           –
    cifar10-ipc1        14.4±2.0  21.5±1.2  21.5±1.3  13.5±1.2    28.3±0.5           84.8±0.1
    cifar10-ipc10       26.0±1.2  31.6±0.7  14.7±0.9  23.3±1.0    44.9±0.5           –
    cifar10-ipc50       43.4±1.0  40.4±0.6  27.0±1.4  23.3±1.1    53.9±0.5           –
""")

#: MNIST, 1 image per class: rows condense, columns are trained.
TABLE2 = _grid("""
            MLP       ConvNet   LeNet     AlexNet    VGG       ResNet
    MLP     70.5±1.2  63.9±6.5  77.3±5.8  70.9±11.6  53.2±7.0  80.9±3.6
    ConvNet 69.6±1.6  91.7±0.5  85.3±1.8  85.1±3.0   83.4±1.8  90.0±0.8
    LeNet   71.0±1.6  90.3±1.2  85.0±1.7  84.7±2.4   80.3±2.7  89.0±0.8
    AlexNet 72.1±1.7  87.5±1.6  84.0±2.8  82.7±2.9   81.2±3.0  88.9±1.1
    VGG     70.3±1.6  90.1±0.7  83.9±2.7  83.4±3.7   81.7±2.6  89.1±0.9
    ResNet  73.6±1.2  91.6±0.5  86.4±1.5  85.4±1.9   83.4±2.4  89.4±0.9
""")

#: LeNet on MNIST, the AlexNet of Dataset Distillation on CIFAR-10.
TABLE3 = _grid("""
                  dataset-distillation  gradient-matching  whole
    mnist-ipc1    –                     85.0±1.6           99.5±0.0
    mnist-ipc10   79.5±8.1              93.9±0.6           –
    cifar10-ipc1  –                     24.2±0.9           83.1±0.2
    cifar10-ipc10 36.8±1.2              39.1±1.2           –
""")

#: Read off a plot; what is at ipc 1, 10 and 50 is in `TABLE1`, but for herding at 50, read off here as well.
_PLOTTED = _grid("""
                                    ipc20 ipc30 ipc40
    mnist-gradient-matching         98.4  98.5  98.7
    mnist-herding                   94.0  94.3  94.5
    fashion_mnist-gradient-matching 84.3  83.4  83.7
    fashion_mnist-herding           72.0  72.3  72.9
    svhn-gradient-matching          79.2  81.2  81.4
    svhn-herding                    62.8  68.0  71.0
    cifar10-gradient-matching       50.3  53.0  53.8
    cifar10-herding                 35.4  37.8  39.7
""")

#: SVHN → MNIST → USPS, mean over the tasks seen after each stage; the first column read off a plot.
CONTINUAL = _grid("""
                                      svhn  mnist  usps
    herding                           94.3  94.3   94.5
    gradient-matching                 94.0  94.8   95.2
    herding-no-distillation           94.3  90.8   90.7
    gradient-matching-no-distillation 94.3  92.4   93.0
""")

ACCURACY_BY_IPC: Grid = _PLOTTED | {
    (f"{row.rpartition('-')[0]}-{method}", row.rpartition("-")[2]): number
    for (row, method), number in TABLE1.items()
    if method in ("gradient-matching", "random", "herding")
}

#: One architecture condenses and is trained: the diagonal of `TABLE2`.
ABLATION_DISTANCE: Grid = {("paper", column): TABLE2[column, column] for _, column in TABLE2}

#: Architecture search, CIFAR-10, 10 images per class: best network's accuracy, correlation, minutes, images.
SEARCH = {
    "random": (76.2, -0.21, 18.8, 100),
    "herding": (76.2, -0.20, 18.8, 100),
    "DC": (84.5, 0.79, 18.8, 100),
    "early stopping": (84.5, 0.42, 18.8, 10_000),
    "whole set": (85.9, 1.00, 8604.3, 50_000),
}
