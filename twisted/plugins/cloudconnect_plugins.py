"""The plugins that ``twist`` and ``twistd`` find: instances only, nothing is imported but names."""

from twisted.application.service import ServiceMaker

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
