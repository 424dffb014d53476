"""Progress on stderr: what a run does, how far it has come, and when it will end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from datacondense.text import clock, duration

#: Seconds of work from which the first estimate is made, and between two lines where there is no terminal.
_MEASURED, _MINUTE = 5.0, 60.0


class Progress:
    """How far a piece of work has come: so many units, in each of which images go through a network.

    On a terminal it is a bar, which also moves within a unit. Where `show` is True, also lines that last:
    those of `say`, the first estimate of the time, and, without a terminal, one about every minute. False:
    nothing.

        with progress.start(done=0):
            for k in range(total):
                progress.advance(256)         # images have gone through the network
                progress.finish({"loss": …})  # a unit is done
    """

    def __init__(
        self,
        title: str = "",
        total: int = 0,
        unit: str = "iteration",
        images: int = 0,
        show: bool | None = None,
        minutes: float | None = None,
    ) -> None:
        """`images`: about how many of them go through the network in each unit.

        `minutes`: after which the work ends, if its units are not all done before. They are counted instead.
        """
        self.title, self.total, self.unit, self.images, self.show = title, total, unit, images, show
        self.minutes = minutes if total else None
        self._bar: tqdm[NoReturn] | None = None
        self._done, self._within, self._metrics = 0, 0.0, ""
        #: When the first piece was done, and where that was: it pays for set-up and compilation.
        self._first: tuple[float, float] | None = None
        self._estimated, self._lines, self._spoken = False, False, 0.0

    def __reduce__(self) -> tuple[type[Progress], tuple[str, int, str, int, bool]]:
        """What another process gets shows nothing: bars of several would mix."""
        return Progress, (self.title, self.total, self.unit, self.images, False)

    def part(self, title: str, total: int, unit: str, images: int) -> Progress:
        """Of a piece of work within this one, shown likewise."""
        return Progress(title, total, unit, images, self.show)

    def say(self, lines: Iterable[str]) -> None:
        """Write lines, above bars, where lines are wanted; elsewhere they are not even made."""
        for line in lines if self.show else ():
            tqdm.write(line, file=sys.stderr)

    def start(self, done: int = 0, seconds: float = 0.0) -> Progress:
        """Begin, after the first `done` units, which took so many `seconds`."""
        self._done, self._spoken = done, time.monotonic()
        self._begun = self._spoken - seconds
        terminal = self.show is not False and sys.stderr.isatty() and self.total > 0
        self._lines = bool(self.show) and not terminal
        self._bar = tqdm(
            total=self.total if self.minutes is None else self.minutes,
            initial=done if self.minutes is None else seconds / 60,
            desc=self.title,
            disable=not terminal,
            dynamic_ncols=True,
            miniters=0,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.2f}/{total} [{elapsed}<{remaining}{postfix}]",
        )
        return self

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def advance(self, images: int) -> None:
        """So many more images of the present unit have gone through the network."""
        if self._bar is not None and self.images:
            self._move(min(1.0, self._within + images / self.images))

    def skip(self, units: int) -> None:
        """So many more units turn out to be done from before; they tell nothing of the pace."""
        if self._bar is not None:
            self._bar.update(units)
        self._done, self._first = self._done + units, None

    def call(self, title: str) -> None:
        """What the bar says from here on."""
        if self._bar is not None:
            self._bar.set_description(title)

    def finish(self, metrics: Mapping[str, float] | None = None) -> None:
        """The present unit is done, with these numbers to show."""
        if self._bar is None:
            return
        numbers = {name: f"{value:.4g}" for name, value in (metrics or {}).items()}
        self._metrics = "".join(f", {name} {value}" for name, value in numbers.items())
        self._bar.set_postfix(numbers, refresh=False)
        self._move(1.0)
        self._done, self._within = self._done + 1, 0.0

    def _move(self, within: float) -> None:
        assert self._bar is not None
        if self.minutes is not None:
            self._pass_time(self._bar, self.minutes, int(self._done + within))
            return
        self._bar.update(within - self._within)
        self._within = within
        now, position = time.monotonic(), self._done + within
        if self._first is None:
            self._first = now, position
            return
        since, start = now - self._first[0], position - self._first[1]
        left = since * (self.total - position) / start if start > 0 else 0.0
        if not self._estimated and since >= _MEASURED:
            self._estimated = True
            self.say([f"about {duration(left)}, until {clock(left)}"])
        if self._lines and self._estimated and now - self._spoken >= _MINUTE:
            self._spoken = now
            self.say([f"{position:.2f} of {self.total} {self.unit}s{self._metrics}, {duration(left)} left"])

    def _pass_time(self, bar: tqdm[NoReturn], minutes: float, done: int) -> None:
        now = time.monotonic()
        passed = min((now - self._begun) / 60, minutes)
        bar.update(passed - bar.n)
        if self._lines and now - self._spoken >= _MINUTE:
            self._spoken = now
            self.say([f"{passed:.1f} of {minutes:g} minutes, {done:,} {self.unit}s{self._metrics}"])
