"""How often gradient matching goes through its loops, by images per class."""

from __future__ import annotations

#: ipc → (T, ς_θ), the paper's.
_OF_PAPER = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


def loops_for(ipc: int) -> tuple[int, int]:
    """(T, ς_θ): how often S is matched per network, and epochs over S between two matchings.

    The paper's table where it has the ipc. Its values follow T = ipc and T · ς_θ ≈ 500; elsewhere the same
    rule holds, with ς_θ at most 50, and beyond 50 images per class (50, 10), as the authors advise.
    """
    if ipc in _OF_PAPER:
        return _OF_PAPER[ipc]
    return (50, 10) if ipc > 50 else (ipc, min(50, round(500 / ipc)))
