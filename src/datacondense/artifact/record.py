"""The record of a condensed set: everything that determined its images, typed, and checked when read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from datacondense.data.source import Source
from datacondense.decoders import UNDECODED, MultiFormation

#: The version of the record that is written; newer ones are not read.
SCHEMA = 1
#: In the place of a method's name, of a set that others made.
IMPORTED = "imported"

Count = Annotated[int, Meta(ge=1)]
ClassName = Annotated[str, Meta(max_length=500)]
Identifier = Annotated[str, Meta(min_length=1, max_length=500)]


class MethodRecord(msgspec.Struct, kw_only=True):
    """How the images were made."""

    name: Identifier
    settings: dict[str, Any]
    reference: str = ""


class DataRecord(msgspec.Struct, kw_only=True):
    """The real images: `ImageDataset.description`."""

    name: str
    images: Count
    image_shape: tuple[Count, Count, Count]
    fingerprint: str
    jpeg: bool = False
    source: Source | None = None


class DecoderRecord(msgspec.Struct, kw_only=True):
    """How stored images become those that networks are trained on."""

    name: Literal["multi-formation"]
    factor: Annotated[int, Meta(ge=2)]


class RelabelledRecord(msgspec.Struct, kw_only=True):
    """The ensemble that gave a set its class probabilities after it was condensed."""

    network: Identifier
    networks: Count
    temperature: Annotated[float, Meta(gt=0)]
    recipe: dict[str, Any]
    seed: int
    """Of the first network; each of the others has the next."""
    data: str
    """The fingerprint of the real images."""
    precision: str
    compiled: bool
    versions: dict[str, str]


class StartRecord(msgspec.Struct, kw_only=True):
    """The set whose images a run began with."""

    fingerprint: str
    """Of its images."""
    record: dict[str, Any]
    """Its own."""


class Record(msgspec.Struct, kw_only=True):
    """Everything that determined the images. What came later has the value that all runs had before."""

    schema: Annotated[int, Meta(ge=1, le=SCHEMA)]
    method: MethodRecord
    network: Identifier
    ipc: Count
    seed: int
    precision: str
    compiled: bool = False
    validation: float = 0.0
    """The part of each class that was held out to decide which state the artifact has."""
    start: StartRecord | None = None
    """None: the images at first were those of the method."""
    class_names: tuple[ClassName, ...]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Meta(gt=0)], ...]
    data: DataRecord
    versions: dict[str, str]
    decoder: DecoderRecord | None = None
    """None: images are trained on as they are stored."""
    relabelled: RelabelledRecord | None = None
    """None: the class probabilities, if there are any, are those of the method."""

    def __post_init__(self) -> None:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class names appear twice")
        if not len(self.mean) == len(self.std) == self.data.image_shape[0]:
            raise ValueError("mean and std do not have one number per channel")
        if "datacondense" not in self.versions:
            raise ValueError("the version of datacondense is missing")
        if self.decoder and self.decoder.factor > min(self.data.image_shape[1:]):
            raise ValueError(f"a decoder of factor {self.decoder.factor}, more than the images have pixels")
        if not (self.method.name.isprintable() and self.network.isprintable()):
            raise ValueError("the name of method or network is not printable")

    def determining(self) -> dict[str, Any]:
        """What must be equal for two runs to be the same, as JSON holds it."""
        about: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        for said in ("schema", "versions", "recipe", "indices", "decoder"):  # the settings imply the last
            about.pop(said, None)
        about["start"] = self.start and self.start.fingerprint
        del about["method"]["reference"], about["data"]["source"]  # the same images may have moved
        return about


def decoder_record(decoder: MultiFormation) -> dict[str, Any]:
    """The decoder as an entry of a record, which one that changes nothing does not have."""
    if decoder.parts == 1:
        return {}
    return {"decoder": {"name": "multi-formation", "factor": decoder.factor}}


def recorded_decoder(record: dict[str, Any]) -> MultiFormation:
    """The decoder of a checked record."""
    return MultiFormation(record["decoder"]["factor"]) if record.get("decoder") else UNDECODED


class ArtifactRecord(Record, kw_only=True):
    """What an artifact says about itself."""

    recipe: dict[str, Any]
    """How networks are to be trained on it: `Recipe.from_record` reads it."""
    indices: tuple[int, ...] | None = None
    """The positions of the images in the real data, where they were chosen from it."""
