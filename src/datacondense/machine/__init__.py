"""The machine: device, precision, compilation, memory, all detected; and where a number comes from."""

from datacondense.machine.settings import Machine, Precision

__all__ = ["Machine", "Precision"]
