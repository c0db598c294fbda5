from __future__ import annotations

from tests.provider.stage import StageCase


class StoryTests(StageCase):
    def test_backup(self) -> None:
        tenant = self.accelerated()
        result = self.reactor.result_of(tenant.back_up(self.source()))
        print(tenant.names(), tenant.manager.saved)
        print(self.provider.names())
        target = self.mktemp()
        r = self.reactor.result_of(tenant.restore(result.point, target))
        print(tenant.names()[12:], tenant.manager.saved, r)
        print(self.reactor.dialled, len(self.reactor.pairs))
