"""Source: where images were read from and how, so that they can be read again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from datacondense.errors import DatacondenseError, UsageError

if TYPE_CHECKING:
    from datacondense.data.loading import DataSplits


@dataclass(frozen=True)
class Source:
    """Everything that `load_dataset` needs to read the same images again; plain values, ready for JSON."""

    data: str
    """A name (looked up anew, so that it holds on another machine), a Hub id, or an absolute path."""
    revision: str | None = None
    """The commit of a dataset on the Hub; None for local data."""
    image_column: str | None = None
    """The column that was named for the images; None: it was recognised, or there are no columns."""
    label_column: str | None = None
    """Likewise, for the labels."""
    resize: str | None = None
    """HEIGHTxWIDTH that every image was brought to."""
    split_seed: int | None = None
    """The seed that set test images aside; None where the data has a test split of its own."""

    def load(self) -> DataSplits:
        """Read the images again.

        Raises:
            UsageError: they are no longer where they were.
            DatacondenseError: they cannot be read any more.
        """
        from datacondense.data.loading import load_source  # it fills datasets, which have a source

        return load_source(self)

    @property
    def folder(self) -> Path | None:
        """The local folder of the images; None for built-in data and the Hub, or where it is gone."""
        from datacondense.data.loading import folder_of

        return folder_of(self)

    def require_outside(self, out: Path) -> None:
        """Raise `UsageError` where what is written to the folder `out` would be read as data next time."""
        if (folder := self.folder) and out.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"{out} is inside {folder}, which the images are read from: what is written there would "
                "become part of the data; choose another folder with --out"
            )

    @classmethod
    def from_record(cls, record: Any) -> Source:
        """What `dataclasses.asdict` made, read back from JSON.

        Raises:
            DatacondenseError: an entry is missing or of the wrong type.
        """
        try:
            return msgspec.convert(record, cls)
        except msgspec.ValidationError as error:
            raise DatacondenseError(f"the record of where the data is from does not fit: {error}") from None
