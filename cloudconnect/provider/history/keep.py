"""Layer 4: for how long a provider knows what happened."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Keep:
    """How long what is kept, in days in which the provider runs; 0: for ever.

    :ivar events_days: events and security warnings
    :ivar sessions_days: sessions
    :ivar audit_days: lines of the audit log
    :ivar audit_gb: GiB of the audit log, of which the oldest lines go first; 0: any number
    :ivar tenant_events: events of one tenant, and as many of its security warnings
    :ivar tenant_sessions: sessions of one tenant
    """

    events_days: int = 400
    sessions_days: int = 400
    audit_days: int = 1100
    audit_gb: int = 8
    tenant_events: int = 500_000
    tenant_sessions: int = 50_000

    @property
    def longest(self) -> int:
        """Days of the longest of them."""
        return max(self.events_days, self.sessions_days, self.audit_days)
