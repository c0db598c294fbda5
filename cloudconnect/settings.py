"""Layer 0: named limits, each with its unit and its reason.

Every limit that a peer can meet is checked before anything is buffered or allocated.
"""

from __future__ import annotations

from typing import Final

#: The protocol versions that this release speaks, lowest first.
PROTOCOL_VERSIONS: Final = (1,)

#: TCP port of a provider: the one port that everything goes through.
PUBLIC_PORT: Final = 6180

# --- time, in seconds ---------------------------------------------------------------------------

#: A complete preamble, or the first byte of TLS, must have come by then.
PREAMBLE_SECONDS: Final = 10.0
#: TLS, tunnel and record handshakes must be over by then (Twisted has no limit of its own).
HANDSHAKE_SECONDS: Final = 10.0
#: Bytes that a peer may send until a TLS handshake is over. A chain of certificates has a few
#: thousand; OpenSSL alone would take 100 KiB, and keep three times as much, of every stranger.
HANDSHAKE_BYTES_MAX: Final = 32 << 10
#: From the end of the TLS handshake to an authenticated tenant.
AUTHENTICATION_SECONDS: Final = 15.0
#: A record that has started must, within each of these, be complete or have grown by
#: ``RECORD_PAYLOAD_PLAIN`` bytes: one minimum rate, 6.5 kB/s, for records of every size.
RECORD_SECONDS: Final = 10.0
#: After END or close_notify was sent, how long the peer may take to answer before an abort.
CLOSE_SECONDS: Final = 10.0
#: How long a Finish that said that all is well may be taken back: what a tenant waits for beside it
#: has ended by then, or was given up.
AMEND_SECONDS: Final = 2 * CLOSE_SECONDS
#: How long Key A may be used, counted on each holder's own monotonic clock from receipt.
KEY_A_SECONDS: Final = 60.0
#: How long Key B is kept after delivery for connections that are still to come.
KEY_B_SECONDS: Final = 60.0
#: How long a session whose control channel was lost may go on.
ORPHAN_SECONDS: Final = 60.0
#: A tenant waits this long for a TCP connection: with the handshakes it stays under 15 s.
CONNECT_SECONDS: Final = 8.0
#: ... and this long for the TLS handshake after it: a provider that is away is told within 15 s.
CONTROL_HANDSHAKE_SECONDS: Final = 6.0
#: A tenant waits this long for an answer on the control channel or in the tunnel.
COMMAND_SECONDS: Final = 30.0
#: Idle control channels, tunnels and streams are pinged this often.
PING_SECONDS: Final = 20.0
#: A peer that has sent nothing at all for this long is gone.
SILENCE_SECONDS: Final = 90.0
#: Where there are other gateways, a tenant waits only so long for an answer to a ping on its
#: control channel: a gateway that hangs keeps its connections, and nobody else would say so.
HANG_SECONDS: Final = 30.0
#: A relay on which no byte went either way for this long is cut: longer than any peer is silent.
RELAY_IDLE_SECONDS: Final = 120.0
#: A line on which the way there and back takes longer is a long one: there a backup sends what it
#: will be asked for before it is asked, and WAN acceleration helps. In a LAN it takes a fraction.
LONG_LINE_SECONDS: Final = 0.005

# --- the record layer ---------------------------------------------------------------------------

#: Largest payload of one record, in bytes: bounds what a receiver buffers before it can verify.
RECORD_PAYLOAD_MAX: Final = 1 << 20
#: Default payload of one record where the stream owns the socket, in bytes (measured, see
#: ``benchmarks/RESULTS.md``).
RECORD_PAYLOAD_FAST: Final = 1 << 20
#: Payload of one record where the layer below is some transport with its own queue, in bytes.
RECORD_PAYLOAD_PLAIN: Final = 64 << 10
#: A sender changes its key after this many payload bytes in one epoch ...
REKEY_BYTES: Final = 4 << 30
#: ... or after this many seconds.
REKEY_SECONDS: Final = 600.0
#: A receiver closes when one epoch carries more than this many payload bytes.
EPOCH_BYTES_MAX: Final = 64 << 30
#: The last epoch; a sender at it must END.
EPOCH_MAX: Final = 0xFFFF

# --- bundles of connections ---------------------------------------------------------------------

#: Most members of one bundle: each costs both sides the buffers of a stream.
BUNDLE_MEMBERS_MAX: Final = 64
#: Largest payload of one batch, in bytes.
BATCH_PAYLOAD_MAX: Final = 256 << 10
#: Most bytes of batches that wait at a receiver for those before them: what a line of 100 Mbit/s
#: brings in 0.3 s, the time in which a lost packet is sent again half around the world.
BUNDLE_WINDOW: Final = 4 << 20
#: A batch whose number is further than this from the one that is due cannot be right: no window and
#: no line holds so many.
BATCH_LEAD_MAX: Final = 1 << 32
#: All members of a bundle must have come so long after the first one, in seconds.
BUNDLE_SECONDS: Final = 30.0

# --- tunnels and commands -----------------------------------------------------------------------

#: Largest payload of the tunnel's second handshake message, in bytes.
TUNNEL_PAYLOAD_MAX: Final = 4096
#: Largest AMP box once authenticated, in bytes.
BOX_MAX: Final = 128 << 10
#: Longest summary that a tenant reports of a session, in bytes as JSON: it is kept with the
#: session, and a usual one has a few hundred.
SUMMARY_MAX: Final = 4096
#: Most AMP requests open at once, once authenticated.
REQUESTS_MAX: Final = 64
#: Largest AMP box before authentication, in bytes.
BOX_MAX_UNAUTHENTICATED: Final = 4096
#: Most AMP requests open at once before authentication.
REQUESTS_MAX_UNAUTHENTICATED: Final = 1
#: ... and while a log-in's proof is looked at: a Start may wait for what comes of it.
REQUESTS_MAX_PROVING: Final = 2
#: Rows in one page of a listing.
PAGE_ROWS_MAX: Final = 500
#: Rows of a listing that a tenant takes, all pages together. A provider keeps fewer of one tenant
#: (``tenant_events``, ``tenant_sessions``); one that never comes to an end must not fill memory.
LISTED_ROWS_MAX: Final = 1_200_000

# --- frames -------------------------------------------------------------------------------------

#: Largest body of one frame, in bytes.
FRAME_BODY_MAX: Final = 8 << 20
#: Most ids in one HAVE or GET.
IDS_MAX: Final = 8192
#: Most ids in one VERIFY: what they mean is read before it is answered, up to 1 GiB.
VERIFY_IDS_MAX: Final = 256
#: Largest plain or stored chunk, in bytes.
CHUNK_MAX: Final = 4 << 20

# --- manifests and restore points ---------------------------------------------------------------

#: Largest encoded piece of a manifest entry, in bytes: bounds what is buffered and decoded at once.
#: Larger than all the extended attributes that Linux usually allows on one file.
MANIFEST_ENTRY_MAX: Final = 4 << 20
#: Runs in one piece of an entry (about 0.7 MB); a file of more runs takes several pieces.
MANIFEST_PIECE_RUNS: Final = 1 << 14
#: Most runs of one file: 1.3 TB of chunks of the usual size.
MANIFEST_RUNS_MAX: Final = 1 << 24
#: Largest encoded record of a restore point, in bytes: 120,000 manifest chunks, some 50 million
#: files; half of what one frame can carry.
POINT_RECORD_MAX: Final = 4 << 20

# --- authentication -----------------------------------------------------------------------------

#: Fewest PBKDF2 iterations that a client accepts for a password that a human chose.
PASSWORD_ITERATIONS_MIN: Final = 600_000
#: Fewest for a token of 256 bits that the provider made.
TOKEN_ITERATIONS_MIN: Final = 4096
#: Most that a client computes for a server that asks for more.
ITERATIONS_MAX: Final = 10_000_000

# --- flow control -------------------------------------------------------------------------------

#: A layer that holds more than this many bytes pauses its producer.
HIGH_WATER: Final = 1 << 20
#: Most connections of one gateway; fewer where its descriptors do not suffice.
CONNECTIONS_MAX: Final = 50_000
#: Most connections of one address at a gateway: a company behind one address has many machines.
ADDRESS_CONNECTIONS_MAX: Final = 1000
#: Most data connections of one tenant at a gateway: of its tasks, each with up to 16 streams and
#: two tunnels.
TENANT_CONNECTIONS_MAX: Final = 1000
#: Most control channels of one tenant: one for each command that runs on one of its machines.
TENANT_CHANNELS_MAX: Final = 500
#: The pool of gateways, and of tenants, where the admin set no other.
DEFAULT_POOL: Final = "default"
#: A gateway says what it has to do this often, in seconds.
LOAD_SECONDS: Final = 5.0
#: Listening sockets' accept queue: Twisted's 50 makes a burst of 1000 connections take 20 s.
BACKLOG: Final = 1024
