"""Draws the pictures of docs/concepts.md, which are committed: `python docs/pictures/draw.py`.

Each has a panel of its own and takes light or dark colours from the reader's system.
"""

from __future__ import annotations

import math
import random
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
WIDTH = 680
STYLE = """
  .panel { fill: #fbfbfa }
  .line { stroke: #565a60; stroke-width: 1.6; fill: none } .head { fill: #565a60 }
  .box { fill: #eef1f5; stroke: #9aa3ad } .real { fill: #8fa7bf } .made { fill: #d9822b }
  .faint { opacity: .35 }
  text { font: 14px system-ui, sans-serif; fill: #22262b } .small { font-size: 12px }
  .strong { font-weight: 600 } .mono { font: 13px ui-monospace, monospace }
  @media (prefers-color-scheme: dark) {
    .panel { fill: #1b1e23 } .line { stroke: #aab2bc } .head { fill: #aab2bc }
    .box { fill: #2a2f37; stroke: #5c6672 } .real { fill: #7f9bb8 } .made { fill: #f0a04b }
    text { fill: #e7eaee }
  }
"""


class Picture:
    """An SVG in the making."""

    def __init__(self, name: str, title: str, height: int) -> None:
        self.name, self.title, self.height = name, title, height
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> None:
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def box(self, x: float, y: float, w: float, h: float, *lines: str, kind: str = "") -> None:
        """With lines of text in its middle, the first of them strong."""
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6" class="box"/>')
        top = y + h / 2 + 5 - 9 * (len(lines) - 1)
        for i, line in enumerate(lines):
            self.text(x + w / 2, top + 18 * i, line, kind or ("small" if i else "strong"))

    def tiles(
        self, x: float, y: float, columns: int, rows: int, kind: str, size: int = 10, only=None
    ) -> None:
        """Images; where `only` is given, the others are faint."""
        for i in range(columns * rows):
            faint = " faint" if only is not None and i not in only else ""
            left, top = x + i % columns * (size + 3), y + i // columns * (size + 3)
            self.parts.append(f'<rect x="{left:g}" y="{top:g}" width="{size}" height="{size}" rx="2" '
                              f'class="{kind}{faint}"/>')  # fmt: skip

    def arrow(self, *points: tuple[float, float]) -> None:
        """Through the points, with a head at the last."""
        path = " L ".join(f"{x:g} {y:g}" for x, y in points)
        (x0, y0), (x, y) = points[-2:]
        turn = math.degrees(math.atan2(y - y0, x - x0))
        self.parts.append(f'<path d="M {path}" class="line"/>')
        self.parts.append(f'<path d="M 1 0 L -9 -5 L -9 5 Z" class="head" '
                          f'transform="translate({x:g} {y:g}) rotate({turn:g})"/>')  # fmt: skip

    def save(self) -> None:
        body = "\n".join(f"  {part}" for part in self.parts)
        (HERE / f"{self.name}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" '
            f'height="{self.height}" role="img">\n  <title>{escape(self.title)}</title>\n'
            f"  <style>{STYLE}  </style>\n"
            f'  <rect width="100%" height="100%" rx="8" class="panel"/>\n{body}\n</svg>\n'
        )


def condensing() -> Picture:
    p = Picture("condensing", "A large dataset becomes a few images, which train a network that is tested on "
                "real images", 170)  # fmt: skip
    p.tiles(24, 28, 10, 8, "real", 8)
    p.text(77, 142, "60,000 real images")
    p.arrow((145, 72), (205, 72))
    p.text(175, 60, "method", "small")
    p.tiles(218, 60, 5, 2, "made", 12)
    p.text(254, 142, "a few condensed ones")
    p.arrow((305, 72), (365, 72))
    p.text(335, 60, "train", "small")
    p.box(375, 46, 100, 52, "network", "fresh weights")
    p.arrow((480, 72), (540, 72))
    p.text(510, 60, "test", "small")
    p.box(550, 46, 106, 52, "accuracy", "on real images")
    return p


def selection() -> Picture:
    p = Picture("selection", "A coreset is chosen from the real images; synthetic images are learned", 190)
    p.text(165, 28, "a coreset: real images, chosen", "strong")
    p.tiles(60, 44, 16, 5, "real", 10, only={7, 21, 39, 52, 66})
    p.arrow((165, 116), (165, 142))
    p.tiles(134, 150, 5, 1, "real")
    p.text(165, 182, "random, herding, k-center, forgetting", "small")
    p.text(515, 28, "synthetic images, learned", "strong")
    p.tiles(410, 44, 16, 5, "real")
    p.arrow((515, 116), (515, 142))
    p.tiles(484, 150, 5, 1, "made")
    p.text(515, 182, "gradient or distribution matching, …", "small")
    return p


def matching() -> Picture:
    p = Picture("matching", "Real and synthetic images of a class go through one network; the distance of "
                "their gradients changes the synthetic images", 210)  # fmt: skip
    p.tiles(30, 36, 8, 3, "real")
    p.text(80, 94, "real batch of a class", "small")
    p.tiles(56, 130, 4, 1, "made")
    p.text(80, 162, "synthetic images", "small")
    p.box(200, 66, 110, 60, "network θ", "the same for both")
    p.arrow((140, 54), (170, 54), (194, 80))
    p.arrow((140, 136), (170, 136), (194, 112))
    p.box(370, 30, 130, 42, "∇θ L on real ones", kind="small")
    p.box(370, 118, 130, 42, "∇θ L on synthetic", kind="small")
    p.arrow((314, 80), (340, 52), (364, 52))
    p.arrow((314, 112), (340, 138), (364, 138))
    p.box(550, 66, 106, 60, "distance D", "1 − cos, by node")
    p.arrow((504, 52), (530, 52), (546, 80))
    p.arrow((504, 138), (530, 138), (546, 112))
    p.arrow((603, 130), (603, 192), (80, 192), (80, 172))
    p.text(340, 186, "∇x D changes the synthetic images, and nothing else", "small")
    return p


def loops() -> Picture:
    p = Picture("loops", "K outer iterations, each with T steps, each of which matches every class and then "
                "trains the network", 220)  # fmt: skip
    p.parts.append('<rect x="24" y="24" width="632" height="176" rx="8" class="box"/>')
    p.text(40, 50, "for k = 0 … K−1", "strong", "start")
    p.box(40, 64, 140, 116, "draw θ₀", "a fresh network", "of random weights")
    p.parts.append('<rect x="204" y="40" width="436" height="148" rx="8" class="box"/>')
    p.text(220, 66, "for t = 0 … T−1", "strong", "start")
    p.arrow((182, 122), (200, 122))
    p.box(220, 80, 190, 94, "match", "every class in turn:", "ς_S steps on D(x)")
    p.arrow((414, 126), (440, 126))
    p.box(446, 80, 178, 94, "train θ", "ς_θ epochs on the", "synthetic images")
    return p


def siamese() -> Picture:
    p = Picture(
        "siamese", "One random transformation is applied to the real and to the synthetic batch alike", 170
    )
    p.tiles(40, 40, 6, 2, "real")
    p.text(78, 88, "real batch", "small")
    p.tiles(52, 110, 4, 1, "made")
    p.text(78, 142, "synthetic", "small")
    p.box(220, 50, 150, 66, "one draw", "rotate by 11°, flip")
    p.arrow((130, 52), (180, 52), (214, 70))
    p.arrow((130, 116), (180, 116), (214, 98))
    for x, y, columns, rows, kind in ((470, 34, 6, 2, "real"), (482, 110, 4, 1, "made")):
        p.parts.append(f'<g transform="rotate(11 {x + 35} {y + 10})">')
        p.tiles(x, y, columns, rows, kind)
        p.parts.append("</g>")
    p.arrow((374, 70), (410, 52), (450, 50))
    p.arrow((374, 98), (410, 116), (460, 116))
    p.text(600, 84, "then match", "small")
    return p


def formation() -> Picture:
    p = Picture(
        "formation",
        "One stored image is cut into parts, which are enlarged to several images to train on",
        170,
    )
    p.tiles(90, 48, 2, 2, "made", 30)
    p.text(121, 138, "one stored image", "small")
    p.arrow((175, 80), (255, 80))
    p.text(215, 68, "decode", "small")
    p.tiles(275, 52, 4, 1, "made", 56)
    p.text(392, 138, "four images", "small")
    p.arrow((525, 80), (565, 80))
    p.box(575, 54, 84, 52, "network")
    return p


def evaluation() -> Picture:
    p = Picture("evaluation", "Fresh networks are trained on the set; their accuracies give a mean, a "
                "standard deviation and n", 190)  # fmt: skip
    p.tiles(30, 72, 5, 2, "made", 12)
    p.text(66, 124, "condensed set")
    draw = random.Random(3)
    for i in range(5):
        y = 20 + 30 * i
        p.arrow((112, 84), (150, 84), (176, y + 11), (196, y + 11))
        p.box(200, y, 120, 22, f"network {i + 1}", kind="small")
        p.arrow((324, y + 11), (352, y + 11))
        x = 470 + draw.gauss(0, 38)
        p.parts.append(f'<circle cx="{x:g}" cy="{y + 11}" r="5" class="made"/>')
    p.parts.append('<path d="M 365 172 L 575 172 M 470 14 L 470 172" class="line"/>')
    p.text(470, 187, "accuracy on real test images", "small")
    p.text(620, 84, "mean ± std")
    p.text(620, 104, "(n = 5)")
    return p


def streams() -> Picture:
    p = Picture("streams", "A run that is stopped and resumed ends in the same bytes as one that is not", 170)
    for y, words in ((56, "one run"), (116, "stopped, resumed")):
        p.text(24, y + 5, words, "small", "start")
        for k in range(6):
            if y == 116 and k == 3:
                p.text(330, y - 22, "stop · checkpoint · --resume", "small")
                p.parts.append(f'<path d="M 330 {y - 14} L 330 {y + 18}" class="line"/>')
            p.box(145 + 64 * k, y - 14, 50, 28, f"k = {k}", kind="small")
        p.arrow((520, y), (552, y))
        p.tiles(562, y - 12, 4, 2, "made")
    p.text(640, 90, "equal", "strong")
    p.text(640, 107, "bytes", "strong")
    p.text(330, 156, "every draw is a function of (seed, purpose, k)", "small")
    return p


def artifact() -> Picture:
    p = Picture("artifact", "The folder of a condensed set and what each file is for", 200)
    p.box(24, 24, 632, 152)
    rows = (
        ("condensed.safetensors", "images, labels, and the record of all that determined them"),
        ("data/train.parquet", "the same images, for datasets.load_dataset"),
        ("README.md", "a card: what it is, how to train on it, what it is not for"),
        ("condensed.png", "the picture"),
        ("metrics.jsonl", "the distance in every iteration"),
        ("result.json", "what the run cost: command, commit, hardware, seconds"),
    )
    for i, (name, about) in enumerate(rows):
        p.text(44, 52 + 23 * i, name, "mono", "start")
        p.text(232, 52 + 23 * i, about, "small", "start")
    return p


if __name__ == "__main__":
    for picture in (
        condensing,
        selection,
        matching,
        loops,
        siamese,
        formation,
        evaluation,
        streams,
        artifact,
    ):
        picture().save()
