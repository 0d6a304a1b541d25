"""The test class that a suite derives from: one broker per class, and a bystander that has to stay unaffected."""

from __future__ import annotations

import itertools
import ssl
import unittest
from typing import Any, ClassVar

from . import broker as brokers
from . import wire

_numbers = itertools.count(1)


def unique(prefix: str = "c") -> str:
    """A client id or topic level that no other test uses."""
    return f"{prefix}{next(_numbers)}"


class BrokerCase(unittest.TestCase):
    """Starts a broker with `settings`; after each test a bystander of each version publishes to itself."""

    settings: ClassVar[dict[str, str]] = {}
    acl: ClassVar[str | None] = None
    users: ClassVar[str | None] = None
    with_bystander: ClassVar[bool] = True
    broker: ClassVar[brokers.Broker]

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = brokers.start(cls.settings, cls.acl, cls.users)
        cls.addClassCleanup(cls.broker.close)

    def setUp(self) -> None:
        self.links: list[wire.Link] = []
        self.addCleanup(self._drop_links)
        self.bystanders: list[wire.Link] = []
        if self.with_bystander:
            for version in (wire.V311, wire.V5):
                link = self.link(version)
                link.connect(unique("bystander"))
                link.subscribe((f"bystander/{version}", 1))
                self.bystanders.append(link)

    def tearDown(self) -> None:
        for link in self.bystanders:
            self.assert_unaffected(link)
        process = self.broker.process
        if process is not None:
            self.assertIsNone(process.poll(), "the broker ended")

    def assert_unaffected(self, link: wire.Link) -> None:
        """A publication to itself comes back on the connection that was there before the test."""
        pid = link.next_pid()
        topic, payload = f"bystander/{link.version}", unique("alive").encode()
        link.send(wire.publish(link.version, topic, payload, 1, pid))
        seen = [link.receive(), link.receive()]
        message = next(found for found in seen if found.kind == wire.PUBLISH)
        self.assertEqual(message.payload, payload)
        self.assertIn(wire.PUBACK, [found.kind for found in seen])
        link.acknowledge(message)

    def _drop_links(self) -> None:
        for link in self.links:
            link.drop()

    def link(
        self, version: int = wire.V5, listener: str = "tcp:default", tls: ssl.SSLContext | None = None
    ) -> wire.Link:
        """A connection without CONNECT."""
        found = wire.Link(self.broker.address(listener), version, tls)
        self.links.append(found)
        return found

    def client(self, version: int = wire.V5, client_id: str | None = None, **options: Any) -> wire.Link:
        """A connected client."""
        link = self.link(version)
        link.connect(unique() if client_id is None else client_id, **options)
        return link
