"""Tests of :mod:`cloudconnect.provider.service.repositories`:
made once, described, and nobody else's.
"""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from cloudconnect.commands.control import (
    ReplaceDescription,
)
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, describe
from cloudconnect.content.heads import SignedHead, first_chain
from cloudconnect.errors import (
    Busy,
    HeadMoved,
    LeaseEnded,
    NotFound,
    ProtocolViolation,
    Refused,
)
from cloudconnect.keys import MasterKey
from tests.provider.stage import ENDED, TENANT, StageCase


class RepositoryTests(StageCase):
    """Making a tenant's repository, with the real mover."""

    def create(self, tenant: str, encoded: bytes) -> Any:
        return self.provider.service.repositories.create(tenant, encoded)

    def described(self, mode: EncryptionMode = EncryptionMode.TENANT, **parts: Any) -> bytes:
        repository = parts.get("repository", os.urandom(16))
        return describe(MasterKey.generate(), repository, mode, ()).encode()

    def folders(self) -> int:
        return len(list(self.provider.repositories.iterdir()))

    def test_once(self) -> None:
        """A tenant makes one repository; what it stored is what it gets back."""
        self.provider.add_tenant()
        encoded = self.described()
        self.reactor.result_of(self.create(TENANT, encoded))
        self.failure_of(self.create(TENANT, self.described()), Refused)
        _, found = self.reactor.result_of(self.provider.service.repositories.account(TENANT))
        self.assertEqual((encoded, 1), (found, self.folders()))
        self.assertIn("repository_made", self.provider.names(tenant=TENANT))

    def test_at_the_same_time(self) -> None:
        """Nor does it make more by asking for many at once."""
        self.provider.add_tenant()
        asked = [Deferred.fromCoroutine(self.create(TENANT, self.described())) for _ in range(9)]
        for deferred in asked[1:]:
            self.failure_of(deferred, Busy, Refused)
        self.reactor.result_of(asked[0])
        self.assertEqual(1, self.folders())

    def test_of_another(self) -> None:
        """A description of another tenant's repository, even its very own, gives no access."""
        victim, thief = self.connected(), self.tenant("thief")
        for encoded in (
            victim.description.encode(),
            self.described(repository=victim.repository),
        ):
            self.failure_of(self.create("thief", encoded), Refused)
        record, found = self.reactor.result_of(self.provider.service.repositories.account("thief"))
        self.assertEqual((None, b""), (record.repository, found))
        self.assertEqual((thief.name, 1), ("thief", self.folders()))

    def test_mode(self) -> None:
        """A mode that the provider did not allow is refused; what was made is known ever after."""
        self.provider.add_tenant()
        self.provider.add_tenant("lax", modes=["tenant", "none"])
        self.failure_of(self.create(TENANT, self.described(EncryptionMode.NONE)), Refused)
        self.failure_of(self.create("lax", self.described(EncryptionMode.PROVIDER)), Refused)
        self.assertEqual(0, self.folders())
        self.reactor.result_of(self.create("lax", self.described(EncryptionMode.NONE)))
        self.assertEqual("none", self.provider.accounts.tenant("lax").mode)

    def test_lease(self) -> None:
        """After the end of the lease no repository is made."""
        self.provider.add_tenant(lease_end="2020-01-31")
        self.failure_of(self.create(TENANT, self.described()), LeaseEnded)

    def test_garbage(self) -> None:
        """What is no description is refused."""
        self.provider.add_tenant()
        self.failure_of(self.create(TENANT, b"garbage"), ProtocolViolation)

    def test_points_without(self) -> None:
        """Who has no repository has no points to list."""
        self.provider.add_tenant()
        query = {"host": "", "job": "", "tag": "", "after": 0, "limit": 10}
        self.failure_of(self.provider.service.repositories.points(TENANT, **query), NotFound)


class DescriptionTests(StageCase):
    """Another description of a repository, from the job manager to the mover."""

    def setUp(self) -> None:
        super().setUp()
        self.acme = self.connected()

    def offer(self, tenant: Any, description: Any, head: SignedHead) -> Any:
        return tenant.manager.replace_description(description.encode(), head)

    def changed(self, tenant: Any) -> tuple[Any, SignedHead]:
        """A new description of a tenant's repository, and its head."""
        old = tenant.description
        description = attrs.evolve(old, revision=1).signed(tenant.keys)
        chain = first_chain(tenant.keys)
        encoded = description.encode()
        return description, chain.next_description(tenant.keys, encoded, old.public_key)

    def account(self) -> bytes:
        _, found = self.reactor.result_of(self.provider.service.repositories.account(TENANT))
        return bytes(found)

    def test_replaced(self) -> None:
        """What its key has signed takes the place of the old one, and is told to the admin; also
        after the lease, for who must lock somebody out."""
        self.provider.accounts.change_tenant(TENANT, {"lease_end": ENDED})
        description, head = self.changed(self.acme)
        for _ in range(2):  # the answer may be lost
            self.reactor.result_of(self.offer(self.acme, description, head))
        self.assertEqual(description.encode(), self.account())
        self.assertIn("description_replaced", self.provider.names(tenant=TENANT))

    def test_login_alone(self) -> None:
        """Who has only the login replaces nothing: not with own keys, not with a made-up head."""
        master = MasterKey.generate()
        own = describe(master, self.acme.repository, EncryptionMode.TENANT, ())
        thief = RepositoryKeys(master, self.acme.repository)
        forged = attrs.evolve(own, revision=1).signed(thief)
        chain = first_chain(thief)
        head = chain.next_description(thief, forged.encode(), forged.public_key)
        description, good = self.changed(self.acme)
        for offered, signed in (
            (forged, head),
            (description, SignedHead(good.encoded, bytes(64))),
            (description, head),
        ):
            self.failure_of(self.offer(self.acme, offered, signed), Refused)
        self.assertEqual(self.acme.description.encode(), self.account())

    def test_of_another(self) -> None:
        """A tenant's signed description does nothing to another's repository."""
        other = self.connected("other")
        description, head = self.changed(self.acme)
        self.failure_of(self.offer(other, description, head), Refused)
        self.assertEqual(self.acme.description.encode(), self.account())

    def test_moved(self) -> None:
        """A head that others have overtaken is told so by its word."""
        description, _ = self.changed(self.acme)
        chain = attrs.evolve(first_chain(self.acme.keys), number=7, value=bytes([1]) * 32)
        encoded = description.encode()
        head = chain.next_description(self.acme.keys, encoded, description.public_key)
        self.failure_of(self.offer(self.acme, description, head), HeadMoved)

    def test_none(self) -> None:
        """Who has no repository, or is disabled, replaces nothing; garbage neither."""
        description, head = self.changed(self.acme)
        nobody = self.tenant("nobody")
        nobody.log_in()
        self.failure_of(self.offer(nobody, description, head), NotFound)
        call = self.acme.manager.control.call
        values = {"head": head.encoded, "head_signature": head.signature}
        self.failure_of(call(ReplaceDescription, description=b"x", **values), ProtocolViolation)
        self.provider.accounts.change_tenant(TENANT, {"disabled": True})
        self.failure_of(self.offer(self.acme, description, head), LeaseEnded)
