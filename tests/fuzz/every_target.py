"""All fuzz targets by their names."""

from __future__ import annotations

from typing import Final

from tests.fuzz import message_targets, named_targets, stored_targets, wire_targets
from tests.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for module in (wire_targets, message_targets, stored_targets, named_targets)
    for target in module.TARGETS
}
