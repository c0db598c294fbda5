"""Layer 0: every error that one part of cloudconnect reports to another.

One base, :class:`CloudConnectError`, and below it two halves: :class:`LocalError` for what is wrong
on this side, and :class:`PeerError` for what the other side, or somebody on the way to it, did.
The docstring of each class is what an operator reads; a message names what, where, why and what to
do next. The exit codes are those of the commands (``docs/howto/exit-codes.rst``), the kinds of
security warning those of ``docs/protocol.rst``, section 9.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class WarningKind(enum.Enum):
    """What a security warning says happened (``docs/protocol.rst``, section 9)."""

    TAMPERED = "tampered"
    REPLAYED = "replayed"
    CONTEXT_MISMATCH = "context_mismatch"
    KEY_A_REJECTED = "key_a_rejected"
    KEY_B_UNCONFIRMED = "key_b_unconfirmed"
    DIGEST_MISMATCH = "digest_mismatch"
    FRAME_MISMATCH = "frame_mismatch"
    DOWNGRADE = "downgrade"
    TRUNCATED = "truncated"
    CERTIFICATE_UNTRUSTED = "certificate_untrusted"
    HOSTNAME_MISMATCH = "hostname_mismatch"
    FINGERPRINT_MISMATCH = "fingerprint_mismatch"
    CONTROL_TAMPERED = "control_tampered"
    AUTHENTICATION_FAILED = "authentication_failed"
    STORED_DATA_DAMAGED = "stored_data_damaged"


class ExitCode(enum.IntEnum):
    """What a command's exit status means."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SOURCES_UNREADABLE = 3
    NOT_FOUND = 10
    NO_SPACE = 11
    LOGIN_REFUSED = 12
    WRONG_KEY = 13
    LEASE_ENDED = 14
    BUSY = 15
    SECURITY_WARNING = 20
    PROVIDER_NOT_TRUSTED = 21
    NOT_REACHABLE = 22
    INTERRUPTED = 130


class CloudConnectError(Exception):
    """Something went wrong that cloudconnect knows by name.

    :cvar reason: stable word for machines (``exit_error`` in ``--json``, AMP error code)
    :cvar exit_code: the exit status of a command that ends with this error
    """

    reason: ClassVar[str] = "failed"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


# --- ours --------------------------------------------------------------------------------------


class LocalError(CloudConnectError):
    """What is wrong is on this side."""


class UsageError(LocalError):
    """The command, a setting or a file that was named cannot be used as it is."""

    reason = "usage"
    exit_code = ExitCode.USAGE


class KeyForgotten(LocalError):
    """A key was asked for after it had been dropped: a bug in the caller, never a peer's doing."""

    reason = "key_forgotten"


class NonceExhausted(LocalError):
    """A key was asked for one record more than it may protect."""

    reason = "nonce_exhausted"


class WrongPassphrase(LocalError):
    """The encryption passphrase or key file does not open this repository's master key."""

    reason = "wrong_passphrase"
    exit_code = ExitCode.WRONG_KEY


class SourceCommandFailed(LocalError):
    """The command whose output was to be backed up failed, so no restore point was published."""

    reason = "source_command_failed"


class UnsafePath(LocalError):
    """A path in a restore point would lead outside the target folder; nothing was written there."""

    reason = "unsafe_path"


class Cancelled(LocalError):
    """The user interrupted the command; what was stored is not sent again next time."""

    reason = "interrupted_by_user"
    exit_code = ExitCode.INTERRUPTED


# --- the peer's, or the way's ------------------------------------------------------------------


class PeerError(CloudConnectError):
    """The other side, or somebody on the way to it, did something or could not do something."""


class ProtocolViolation(PeerError):
    """The peer sent something that version 1 of the protocol does not allow."""

    reason = "protocol_violation"


class NotFound(PeerError):
    """No such restore point, repository, path or tenant."""

    reason = "not_found"
    exit_code = ExitCode.NOT_FOUND


class NoSpace(PeerError):
    """The tenant's quota is used up, or the provider's disk is full."""

    reason = "no_space"
    exit_code = ExitCode.NO_SPACE


class QuotaUsed(NoSpace):
    """The tenant's quota is used up: nothing of the backup that was refused is kept."""

    reason = "quota_used"


class LoginRefused(PeerError):
    """The provider does not accept this tenant name and login password."""

    reason = "login_refused"
    exit_code = ExitCode.LOGIN_REFUSED
    kind: ClassVar[WarningKind] = WarningKind.AUTHENTICATION_FAILED


class LeaseEnded(PeerError):
    """The tenant's lease has ended, or the provider has disabled the tenant."""

    reason = "lease_ended"
    exit_code = ExitCode.LEASE_ENDED


class Busy(PeerError):
    """The tenant already runs as many tasks as the provider allows."""

    reason = "busy"
    exit_code = ExitCode.BUSY


class HeadMoved(Busy):
    """Another machine of the tenant published at the same moment; a command tries again itself."""

    reason = "head_moved"


class Refused(PeerError):
    """The provider refuses this request and says why."""

    reason = "refused"


class NotAllowed(Refused):
    """The credential that this machine logs in with does not allow that."""

    reason = "not_allowed"


class NoAccelerator(Refused):
    """The provider, or the tenant, has no WAN accelerator for a session that asks for one."""

    reason = "no_accelerator"


class NotReachable(PeerError):
    """The provider cannot be reached, or the line broke and retries ran out."""

    reason = "not_reachable"
    exit_code = ExitCode.NOT_REACHABLE


class HandshakeTimeout(NotReachable):
    """A handshake did not finish within its time limit."""

    reason = "handshake_timeout"


class Truncated(NotReachable):
    """The bytes stopped without the authenticated end: a broken line, or somebody cut it.

    The same command goes on from there: what was stored is not sent again.
    """

    reason = "truncated"
    kind: ClassVar[WarningKind] = WarningKind.TRUNCATED


class MovedOn(NotReachable):
    """The provider asks to go on in a new session: a role of it stops, or was lost."""

    reason = "moved_on"


class Aborted(NotReachable):
    """The peer gave up and said so; nothing is wrong with what it had sent before.

    :ivar code: the peer's reason code (``docs/protocol.rst``, section 6), 0 to 65535
    """

    reason = "aborted"

    def __init__(self, message: str = "", code: int = 0) -> None:
        why = f"(code {code})" if code else "without a reason, as it does when it is stopped"
        super().__init__(message or f"the peer gave up {why}")
        self.code = code


class SecurityError(PeerError):
    """Something was changed on the way or in the store. Nothing unverified was stored.

    :cvar kind: which warning this raises
    """

    reason = "security_warning"
    exit_code = ExitCode.SECURITY_WARNING
    kind: ClassVar[WarningKind]


class Tampered(SecurityError):
    """Bytes were changed, reordered, repeated or moved on the way."""

    reason = "tampered"
    kind = WarningKind.TAMPERED


class Replayed(SecurityError):
    """Something that may be used once was used again."""

    reason = "replayed"
    kind = WarningKind.REPLAYED


class ContextMismatch(SecurityError):
    """The peer speaks of another session, tenant, role, kind or hop than was agreed."""

    reason = "context_mismatch"
    kind = WarningKind.CONTEXT_MISMATCH


class KeyARejected(SecurityError):
    """The other end of the Key A tunnel does not hold this session's Key A."""

    reason = "key_a_rejected"
    kind = WarningKind.KEY_A_REJECTED


class KeyBUnconfirmed(SecurityError):
    """The target did not prove that it received this session's Key B unchanged."""

    reason = "key_b_unconfirmed"
    kind = WarningKind.KEY_B_UNCONFIRMED


class DigestMismatch(SecurityError):
    """Content does not have the digest that was announced for it."""

    reason = "digest_mismatch"
    kind = WarningKind.DIGEST_MISMATCH


class FrameMismatch(SecurityError):
    """A frame does not carry the tag that only the two movers can make."""

    reason = "frame_mismatch"
    kind = WarningKind.FRAME_MISMATCH


class Downgrade(SecurityError):
    """A lower protocol version was chosen than both sides offer."""

    reason = "downgrade"
    kind = WarningKind.DOWNGRADE


class ControlTampered(SecurityError):
    """A TLS record of the control channel was changed, or it ended without close_notify."""

    reason = "control_tampered"
    kind = WarningKind.CONTROL_TAMPERED


class StoredDataDamaged(SecurityError):
    """Stored data is damaged or was changed, it cannot be told which; the rest stays restorable."""

    reason = "stored_data_damaged"
    kind = WarningKind.STORED_DATA_DAMAGED


class ProviderNotTrusted(PeerError):
    """The provider's certificate does not prove that this is the provider; no credential was sent.

    :ivar presented: ``SPKI-SHA256:`` fingerprint of the certificate that was presented, or None
    """

    reason = "provider_not_trusted"
    exit_code = ExitCode.PROVIDER_NOT_TRUSTED
    kind: ClassVar[WarningKind] = WarningKind.CERTIFICATE_UNTRUSTED

    def __init__(self, message: str = "", presented: str | None = None) -> None:
        super().__init__(message)
        self.presented = presented


class CertificateUntrusted(ProviderNotTrusted):
    """The certificate's chain does not hold (unknown authority, expired, wrong usage)."""

    reason = "certificate_untrusted"


class HostnameMismatch(ProviderNotTrusted):
    """The certificate is for another host name."""

    reason = "hostname_mismatch"
    kind = WarningKind.HOSTNAME_MISMATCH


class FingerprintMismatch(ProviderNotTrusted):
    """The certificate does not have the fingerprint that the provider gave."""

    reason = "fingerprint_mismatch"
    kind = WarningKind.FINGERPRINT_MISMATCH


def error_classes() -> dict[str, type[CloudConnectError]]:
    """Every error class by its ``reason``, for carrying errors over a wire by name."""
    found: dict[str, type[CloudConnectError]] = {}
    waiting: list[type[CloudConnectError]] = [CloudConnectError]
    while waiting:
        cls = waiting.pop()
        if "reason" in vars(cls):
            found.setdefault(cls.reason, cls)
        waiting.extend(cls.__subclasses__())
    return found
