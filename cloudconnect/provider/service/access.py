"""Layer 4: what a tenant may do now: whether it is enabled, its lease, and the credential used.

Pure: from the tenant's record, what its credential allows and today's date to an error or none. The
control channel asks before each command, before anything is read (``docs/protocol.rst``, section
2). A lease that has ended allows for a time of grace what gives back what is stored; then nothing.
"""

from __future__ import annotations

import datetime
import enum
from typing import Final

import attrs

from cloudconnect.commands.control import SessionKind
from cloudconnect.errors import NotAllowed
from cloudconnect.provider.accounts import Tenant
from cloudconnect.provider.accounts.credentials import CAPABILITIES, Credential

#: Days after the end of a lease in which a tenant may still list and restore.
GRACE_DAYS: Final = 30


class Act(enum.Enum):
    """What a tenant can ask for on its control channel."""

    LOG_IN = "log in"
    LIST = "list restore points"
    BACKUP = "back up"
    RESTORE = "restore"
    READ = "read"
    CHECK = "check"
    CREATE = "make the repository"
    CHANGE_KEYS = "change the repository's keys"
    DELETE = "delete restore points"
    UNDELETE = "undelete restore points"
    LOCK = "lock restore points"
    SHOW_RETENTION = "see what is kept"
    SET_RETENTION = "change what is kept"


#: The act that a session of each kind is.
SESSIONS: Final = {
    SessionKind.BACKUP: Act.BACKUP,
    SessionKind.RESTORE: Act.RESTORE,
    SessionKind.READ: Act.READ,
    SessionKind.CHECK: Act.CHECK,
}
#: Which capabilities allow an act: any one of them.
NEEDS: Final[dict[Act, tuple[str, ...]]] = {
    Act.LOG_IN: CAPABILITIES,
    Act.LIST: ("read",),
    Act.BACKUP: ("write",),
    Act.RESTORE: ("read",),
    # Of the repository's past everybody may read, whoever writes has to; of data only who may read:
    # the mover is told so.
    Act.READ: CAPABILITIES,
    Act.CHECK: ("read",),
    Act.CREATE: ("admin",),
    Act.CHANGE_KEYS: ("admin",),
    Act.DELETE: ("delete",),
    Act.UNDELETE: ("delete",),
    Act.LOCK: ("delete",),
    Act.SHOW_RETENTION: ("read",),
    Act.SET_RETENTION: ("delete",),
}
_NO_BACKUPS: Final = "no new backups, restores go on for a grace time"
#: What only a lease that has not ended allows, and how it is refused. Keys may be changed in the
#: time of grace: who must lock somebody out must not wait.
NEEDS_LEASE: Final = {
    Act.BACKUP: _NO_BACKUPS,
    Act.CREATE: _NO_BACKUPS,
    Act.DELETE: "nothing can be deleted",
    Act.LOCK: "nothing can be locked",
    Act.SET_RETENTION: "retention cannot be changed",
}


@attrs.frozen(eq=False)
class Login:
    """Who is at the other end of a control channel: one log-in with one credential.

    :ivar number: the credential's number
    :ivar label: its name
    :ivar capabilities: what it allows
    :ivar invitation: whether it is good for nothing but a credential of the machine's own
    """

    tenant: str
    number: int
    label: str
    capabilities: frozenset[str]
    invitation: bool = False

    @classmethod
    def by(cls, credential: Credential) -> Login:
        """The log-in with this credential."""
        return cls(
            credential.tenant,
            credential.number,
            credential.label,
            frozenset() if credential.invitation else credential.capabilities,
            credential.invitation,
        )


def check_access(
    record: Tenant, login: Login, act: Act, today: datetime.date, grace_days: int = GRACE_DAYS
) -> None:
    """Whether a tenant may do this now, with this credential.

    :param grace_days: days after the end of the lease in which it may list and restore
    :raises LeaseEnded: it is disabled, or its lease has ended
    :raises NotAllowed: its credential does not allow that
    """
    record.check_enabled()
    record.check_grace(today, grace_days)
    if act in NEEDS_LEASE:
        record.check_active(today, NEEDS_LEASE[act])
    if act is Act.LOG_IN:
        return  # an invitation too
    if login.invitation:
        raise NotAllowed("an invitation is good for cloudconnect connect --invite, and once only")
    if not login.capabilities & set(NEEDS[act]):
        needed = " or ".join(NEEDS[act])
        raise NotAllowed(
            f"the credential {login.label} of tenant {login.tenant} may not {act.value}: that "
            f"takes one that can {needed}; ask the provider"
        )
