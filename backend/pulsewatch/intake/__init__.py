"""Door 1: the formats in which events come in, one file each. To add one, list it here."""

from pulsewatch.intake.base import Wire
from pulsewatch.intake.native import NativeWire
from pulsewatch.intake.openlineage import OpenLineageWire

WIRES: tuple[Wire, ...] = (NativeWire(), OpenLineageWire())
