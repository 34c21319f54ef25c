"""What the models need to know of a patient, and no more: from the EHR or a Bundle. Goes on to `sidecar.deid`."""

from sidecar.context.bundle import from_bundle
from sidecar.context.reader import ContextReader, Need
from sidecar.context.unit import unit_of

__all__ = ["ContextReader", "Need", "from_bundle", "unit_of"]
