"""The plugins that Twisted finds: services for ``twist`` and parsers of endpoint strings.

Instances only; nothing is imported but names.
"""

from twisted.application.service import ServiceMaker

from cloudconnect.transports.strings import NoiseTunnelParser, PinnedTLSParser, RecordStreamParser

provider = ServiceMaker(
    "cloudconnect provider",
    "cloudconnect.tap.provider",
    "A backup service provider: gateway, Cloud Connect service and data mover in one process.",
    "cloudconnect-provider",
)
gateway = ServiceMaker(
    "cloudconnect gateway",
    "cloudconnect.tap.gateway",
    "A gateway of a backup service provider, in a process of its own.",
    "cloudconnect-gateway",
)
wan = ServiceMaker(
    "cloudconnect WAN accelerator",
    "cloudconnect.tap.wan",
    "A WAN accelerator of a backup service provider or of a tenant, in a process of its own.",
    "cloudconnect-wan",
)
agent = ServiceMaker(
    "cloudconnect agent",
    "cloudconnect.tap.agent",
    "A tenant's scheduler: runs backups when they are due.",
    "cloudconnect-agent",
)
datamover = ServiceMaker(
    "cloudconnect data mover",
    "cloudconnect.tap.datamover",
    "A target data mover of a backup service provider, in a process of its own.",
    "cloudconnect-datamover",
)
record_stream = RecordStreamParser()
noise_tunnel = NoiseTunnelParser()
pinned_tls = PinnedTLSParser()
