"""Layer 3: what the provider demands of one repository, and allows in it.

The accounts of the Cloud Connect service are the source; the mover stores them here, because what
is kept must not depend on whether the service can be reached. A change takes hold of what comes
after it: deadlines that are set already stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

import attrs
import sqlalchemy as sa

from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import ProtocolViolation, Refused
from cloudconnect.repository.tables import repository_table

#: Longest time that a rule speaks of, in days: 100 years.
DAYS_MAX: Final = 36_500
DAY: Final = 86400.0

_WORD_MAX: Final = (1 << 63) - 1


@attrs.frozen(kw_only=True)
class Rules:
    """The rules of one repository.

    :ivar bin_days: days for which a deleted point stays in the bin
    :ivar bin_bytes: with so many bytes in the bin or more, nothing more is deleted or backed up, or
        None
    :ivar shorten_days: days until a retention policy that keeps less comes into force
    :ivar lock_days: days from its arrival for which every new point is locked; 0: it is not
    :ivar grace_hours: hours for which a blob that no point needs is kept, so that a backup that was
        killed goes on from it
    :ivar floor: what every retention policy keeps at least, in every field, or None
    :ivar ceiling: what every retention policy keeps at most, in every field, or None
    """

    bin_days: int = 14
    bin_bytes: int | None = None
    shorten_days: int = 14
    lock_days: int = 0
    grace_hours: int = 24
    floor: RetentionPolicy | None = None
    ceiling: RetentionPolicy | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("bin_days", "shorten_days", "lock_days", "grace_hours"):
            most = DAYS_MAX * 24 if name == "grace_hours" else DAYS_MAX
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= most:
                raise ValueError(f"{name} is a number from 0 to {most}")
        cap = self.bin_bytes
        if cap is not None and (type(cap) is not int or not 1 <= cap <= _WORD_MAX):
            raise ValueError("bin_bytes is a number from 1, or none")
        if self.floor and self.ceiling and not self.ceiling.covers(self.floor):
            raise ValueError("no retention policy is above this floor and below this ceiling")

    def as_map(self) -> dict[str, Any]:
        """The fields as JSON values."""
        values = {name: getattr(self, name) for name in attrs.fields_dict(Rules)}
        for name in ("floor", "ceiling"):
            values[name] = values[name] and values[name].as_map()
        return values

    @classmethod
    def from_map(cls, fields: Mapping[str, Any]) -> Self:
        """The other way round; what is missing is as usual.

        :raises ProtocolViolation: not rules, or those of a newer release
        """
        try:
            values = dict(fields)
            for name in ("floor", "ceiling"):
                if values.get(name) is not None:
                    values[name] = RetentionPolicy.from_map(values[name])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ProtocolViolation(f"a repository's rules cannot be used: {error}") from error

    def check(self, policy: RetentionPolicy | None) -> None:
        """That this retention policy may be set; None keeps everything.

        :raises Refused: it keeps less than the floor or more than the ceiling
        """
        if policy is None:
            if self.ceiling is not None:
                raise Refused(
                    f"the provider keeps at most {self.ceiling}: a retention policy has to say what"
                )
            return
        if self.floor is not None and not policy.covers(self.floor):
            raise Refused(
                f"the provider keeps at least {self.floor}, in every field: {policy} is too little"
            )
        if self.ceiling is not None and not self.ceiling.covers(policy):
            raise Refused(
                f"the provider keeps at most {self.ceiling}, in every field: {policy} is too much"
            )


def read_rules(connection: sa.Connection) -> Rules:
    """The rules in force.

    :raises ProtocolViolation: a newer release made them
    """
    return Rules.from_map(connection.execute(sa.select(repository_table.c.rules)).scalar_one())


def write_rules(connection: sa.Connection, rules: Rules) -> None:
    """Put rules into force."""
    connection.execute(sa.update(repository_table).values(rules=rules.as_map()))
