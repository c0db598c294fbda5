"""Layer 1: the record of a restore point (``docs/repository-format.rst``, point record).

The one thing that the provider can read of a backup in ``tenant`` mode: labels, times, sizes, and
which manifest chunks it needs. The tenant signs the encoded record, which is stored as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from cloudconnect.content.subkeys import IDENTIFIER_SIZE, EncryptionMode
from cloudconnect.errors import ProtocolViolation
from cloudconnect.settings import POINT_RECORD_MAX
from cloudconnect.shown import Shown
from cloudconnect.wire import canonical
from cloudconnect.wire.frames import ID_SIZE, split_ids

#: The version that this release writes and reads.
VERSION: Final = 1
#: Longest host, job or tag, in characters: a host name has at most 253.
LABEL_MAX: Final = 255
#: Most tags of one point.
TAGS_MAX: Final = 64
#: Most counters in the statistics.
STATISTICS_MAX: Final = 64
#: All labels, tags and names of counters together, in bytes of UTF-8: a row with them must fit into
#: one page of a listing (``commands.paging``), or nobody could list what comes behind it.
LABELS_BYTES_MAX: Final = 40_000

_WORD_MAX: Final = (1 << 63) - 1  # what a signed 64-bit column holds


@attrs.frozen(kw_only=True, repr=False)
class PointRecord(Shown):
    """What a restore point is.

    :ivar point: its 16 bytes
    :ivar repository: the repository's 16 bytes
    :ivar session: the session's 16 bytes that published it
    :ivar job_id: 16 bytes, of all sessions of one run of a job
    :ivar host: name of the machine, printable, 1 to 255 characters
    :ivar job: name of the job, likewise
    :ivar tags: at most 64, likewise
    :ivar started_ns: nanoseconds since 1970 by the tenant's clock, for people only
    :ivar finished_ns: likewise
    :ivar mode: who can read the content
    :ivar manifest: ids of the manifest's chunks, 32 bytes each, in order
    :ivar manifest_length: the manifest's plain bytes
    :ivar statistics: counters: files, directories, other, bytes_source, bytes_new, unreadable
    :ivar private: sealed (:meth:`RepositoryKeys.seal_private`)
    """

    point: bytes
    repository: bytes
    session: bytes
    job_id: bytes
    host: str
    job: str
    tags: tuple[str, ...] = ()
    started_ns: int
    finished_ns: int
    mode: EncryptionMode
    manifest: tuple[bytes, ...] = attrs.field(repr=lambda ids: f"<{len(ids)} ids>")
    manifest_length: int
    statistics: Mapping[str, int] = attrs.field(factory=dict)
    private: bytes = attrs.field(default=b"", repr=False)
    version: int = VERSION

    def __attrs_post_init__(self) -> None:
        if self.version != VERSION or type(self.version) is not int:
            raise ValueError("a newer release is needed for this restore point's record")
        for name in ("point", "repository", "session", "job_id"):
            value = getattr(self, name)
            if type(value) is not bytes or len(value) != IDENTIFIER_SIZE:
                raise ValueError(f"a restore point's {name} has {IDENTIFIER_SIZE} bytes")
        _check_label("host", self.host)
        _check_label("job", self.job)
        for tag in self.tags:
            _check_label("tag", tag)
        if len(self.tags) > TAGS_MAX or len(self.statistics) > STATISTICS_MAX:
            raise ValueError("a restore point has too many tags or counters")
        for name, number in self.statistics.items():
            _check_label("counter", name)
            _check_word(name, number)
        texts = (self.host, self.job, *self.tags, *self.statistics)
        if sum(len(text.encode()) for text in texts) > LABELS_BYTES_MAX:
            raise ValueError(f"a restore point has over {LABELS_BYTES_MAX} bytes of labels")
        for name in ("started_ns", "finished_ns", "manifest_length"):
            _check_word(name, getattr(self, name))
        if any(type(name) is not bytes or len(name) != ID_SIZE for name in self.manifest):
            raise ValueError(f"an id of a manifest chunk has {ID_SIZE} bytes")
        if type(self.private) is not bytes:
            raise ValueError("the private part of a restore point is not bytes")

    @property
    def entries(self) -> int:
        """Entries of its manifest, but for those of folders on the way to what was backed up."""
        counted = self.statistics
        return sum(counted.get(name, 0) for name in ("files", "directories", "other"))

    def encode(self) -> bytes:
        """As canonical CBOR, at most POINT_RECORD_MAX bytes.

        :raises ValueError: longer
        """
        fields = {name: getattr(self, name) for name in attrs.fields_dict(PointRecord)}
        fields["tags"] = list(self.tags)
        fields["mode"] = self.mode.value
        fields["manifest"] = b"".join(self.manifest)
        fields["statistics"] = dict(self.statistics)
        encoded = canonical.encode(fields)
        if len(encoded) > POINT_RECORD_MAX:
            raise ValueError(f"a restore point's record has at most {POINT_RECORD_MAX} bytes")
        return encoded

    @classmethod
    def decode(cls, encoded: bytes | memoryview) -> PointRecord:
        """The other way round; that it is signed is the caller's to check.

        :raises ProtocolViolation: not a record, too long, or of a newer version
        """
        if len(encoded) > POINT_RECORD_MAX:
            raise ProtocolViolation(f"a restore point's record has over {POINT_RECORD_MAX} bytes")
        fields = canonical.decode_map(encoded, max_depth=2, max_items=512)
        try:
            if set(fields) != set(attrs.fields_dict(cls)):
                raise ValueError("it has other fields")
            if type(fields["tags"]) is not list or type(fields["statistics"]) is not dict:
                raise ValueError("tags or statistics have the wrong type")
            if type(fields["manifest"]) is not bytes:
                raise ValueError("the manifest's ids have the wrong type")
            return cls(
                **{
                    **fields,
                    "tags": tuple(fields["tags"]),
                    "mode": EncryptionMode(fields["mode"]),
                    "manifest": tuple(split_ids(fields["manifest"])),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolViolation(f"a restore point's record cannot be used: {error}") from error


def _check_label(what: str, text: Any) -> None:
    # Printable only: labels are shown in terminals, logs and pages of other people.
    if not isinstance(text, str) or not 1 <= len(text) <= LABEL_MAX or not text.isprintable():
        raise ValueError(f"a restore point's {what} has 1 to {LABEL_MAX} printable characters")


def _check_word(what: str, number: Any) -> None:
    if type(number) is not int or not 0 <= number <= _WORD_MAX:
        raise ValueError(f"a restore point's {what} is not from 0 to 2**63 - 1")
