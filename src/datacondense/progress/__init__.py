"""What a run says: bars and lines on stderr, what it will do, and about how long it takes."""

from datacondense.progress.showing import Progress

__all__ = ["Progress"]
