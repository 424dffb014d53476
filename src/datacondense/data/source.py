"""Source: where images were read from and how, so that they can be read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from datacondense.errors import DatacondenseError


@dataclass(frozen=True)
class Source:
    """The settings with which `load_dataset` reads the same images again; plain values, ready for JSON."""

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
