"""Layer 4: what a tenant asks of its provider beside sessions, on its control channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from cloudconnect.commands.box import BoundedCommand
from cloudconnect.commands.control import (
    AcceptInvitation,
    AcceptWithCertificate,
    CreateRepository,
    DeletePoints,
    GetRetention,
    ListHistory,
    ListPoints,
    LockPoints,
    NoticeTaken,
    PreviewRetention,
    ReplaceDescription,
    SetRetention,
    ShowAgreement,
    UndeletePoints,
)
from cloudconnect.content.heads import SignedHead
from cloudconnect.errors import ProtocolViolation, Refused
from cloudconnect.settings import LISTED_ROWS_MAX, PAGE_ROWS_MAX
from cloudconnect.tenant.control import ControlLine
from cloudconnect.wire.login import Verifier

if TYPE_CHECKING:
    from cloudconnect.tenant.agreement import Agreement

#: Points of one act, of the 256 that it may name: each is some fsyncs at the provider, and the
#: answer must come before the line is taken for dead.
ACT_POINTS = 64


class AskingLine(ControlLine):
    """A control channel on which a tenant asks for what its provider keeps of it."""

    async def history(self, what: str, session: str = "") -> list[dict[str, Any]]:
        """What the provider has kept of the tenant's sessions, oldest first, as maps.

        :param what: ``event`` or ``session``
        :param session: only this one's events, as hexadecimal digits
        """
        return await self._pages(ListHistory, "rows", "cursor", what=what, session=session)

    async def notice_taken(self, host: str, pins: Sequence[str]) -> None:
        """Tell the provider which pins of its next keys this machine knows."""
        await self.control.call(NoticeTaken, host=host, pins=list(pins))

    async def accept_invitation(self, verifier: Verifier) -> str:
        """Spend the invitation that was logged in with; the label of the credential made of it.

        :param verifier: of a login password that was made here
        """
        answer = await self.control.call(AcceptInvitation, **attrs.asdict(verifier))
        label: str = answer["label"]
        return label

    async def accept_with_certificate(self) -> str:
        """Spend the invitation that was logged in with for the certificate of this line; the label
        of the credential made of it."""
        label: str = (await self.control.call(AcceptWithCertificate))["label"]
        return label

    async def create_repository(self, description: bytes) -> None:
        """Store the description of the tenant's new repository at the provider."""
        await self.control.call(CreateRepository, description=description)

    async def replace_description(self, description: bytes, head: SignedHead) -> None:
        """Replace the description of the tenant's repository.

        :param head: its entry in the chain of heads, signed by the key before it
        :raises HeadMoved: another machine was faster
        """
        await self.control.call(
            ReplaceDescription,
            description=description,
            head=head.encoded,
            head_signature=head.signature,
        )

    async def points(
        self,
        host: str = "",
        job: str = "",
        tag: str = "",
        states: tuple[str, ...] = ("published",),
    ) -> list[dict[str, Any]]:
        """All restore points with these labels, oldest first, as maps.

        :param states: of ``published``, ``deleted`` (in the bin), ``removed`` and ``withdrawn``
        """
        asked: dict[str, Any] = {"host": host, "job": job, "tag": tag, "states": list(states)}
        return await self._pages(ListPoints, "points", "arrival", **asked)

    async def agreement(self) -> Agreement | None:
        """What is agreed with the provider and how much of it is used; None where it is of an
        older release.

        :raises ProtocolViolation: it cannot be used
        """
        try:
            answer = await self.control.call(ShowAgreement)
        except (ProtocolViolation, Refused):  # "there is no such command here"
            return None
        from cloudconnect.tenant.agreement import Agreement  # here, as only one command wants it

        return Agreement.from_map(answer["agreement"])

    # --- how points are kept ---------------------------------------------------------------------

    async def delete_points(self, points: Sequence[bytes]) -> list[dict[str, Any]]:
        """Put restore points into the bin; what became of each.

        :param points: ids, 16 bytes each; more than fit into one act are done act by act
        """
        return await self._act(DeletePoints, points)

    async def undelete_points(self, points: Sequence[bytes]) -> list[dict[str, Any]]:
        """Take restore points out of the bin; what became of each."""
        return await self._act(UndeletePoints, points)

    async def lock_points(self, points: Sequence[bytes], until: int) -> list[dict[str, Any]]:
        """Lock restore points until a moment, in seconds since 1970; what became of each."""
        return await self._act(LockPoints, points, until=until)

    async def retention(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Every retention policy, and what the provider demands and allows."""
        found: list[dict[str, Any]] = []
        while True:
            page = await self.control.call(GetRetention, after=len(found), limit=PAGE_ROWS_MAX)
            _extend(found, page["policies"])
            if not page["more"] or not page["policies"]:
                return found, page["rules"]

    async def set_retention(
        self, host: str, job: str, policy: dict[str, int] | None
    ) -> dict[str, Any]:
        """Set what is kept of a host and a job (empty: of every one); how it stands now."""
        answer = await self.control.call(SetRetention, host=host, job=job, policy=policy)
        row: dict[str, Any] = answer["policy"]
        return row

    async def preview_retention(
        self, proposed: tuple[str, str, dict[str, int] | None] | None = None
    ) -> list[dict[str, Any]]:
        """What retention would keep and remove, and why.

        :param proposed: host, job and policy as if they were set
        """
        host, job, policy = proposed or ("", "", None)
        asked: dict[str, Any] = {"host": host, "job": job, "policy": policy}
        return await self._pages(
            PreviewRetention, "decisions", "arrival", proposed=proposed is not None, **asked
        )

    async def _act(
        self, command: type[BoundedCommand], points: Sequence[bytes], **values: Any
    ) -> list[dict[str, Any]]:
        done: list[dict[str, Any]] = []
        for at in range(0, len(points), ACT_POINTS):
            part = list(points[at : at + ACT_POINTS])
            answer = await self.control.call(command, points=part, **values)
            done.extend(answer["points"])
        return done

    async def _pages(
        self, command: type[BoundedCommand], field: str, number: str, **asked: Any
    ) -> list[dict[str, Any]]:
        """All rows of a listing whose pages go on behind a number of each row.

        :param field: what the answer calls the rows
        :param number: what a row calls its number
        :raises ProtocolViolation: the provider goes round in a circle, or to no end
        """
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            page = await self.control.call(command, after=after, limit=PAGE_ROWS_MAX, **asked)
            _extend(found, page[field])
            if not page["more"] or not page[field]:
                return found
            last = found[-1].get(number)
            if type(last) is not int or last <= after:
                raise ProtocolViolation("the pages of a listing do not go on where they should")
            after = last


def _extend(found: list[dict[str, Any]], page: Any) -> None:
    """Take the rows of one page.

    :raises ProtocolViolation: they are none, or too many in all
    """
    if not isinstance(page, list) or not all(isinstance(row, dict) for row in page):
        raise ProtocolViolation("a page of a listing cannot be read")
    if len(found) + len(page) > LISTED_ROWS_MAX:
        raise ProtocolViolation(f"a listing has more than {LISTED_ROWS_MAX} rows")
    found.extend(page)
