"""Every client, over every transport, in every version, at every QoS; and every client with every other."""

from __future__ import annotations

import unittest
from collections import Counter
from typing import ClassVar

import adapters
from adapters import CLIENTS, TRANSPORTS, VERSIONS, Client

from harness import broker as brokers
from harness import wire

SHOWN = {3: "3.1", 4: "3.1.1", 5: "5.0"}


def settings() -> dict[str, str]:
    out = {"listeners.ws.default.bind": "127.0.0.1:0", "mqtt.max_packet_size": "2MB", "mqtt.max_payload_size": "2MB"}
    out.update(brokers.tls_listener("default"))
    out.update(brokers.tls_listener("default", "wss"))
    return out


class MatrixCase(unittest.TestCase):
    broker: ClassVar[brokers.Broker]

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = brokers.start(settings())
        cls.addClassCleanup(cls.broker.close)

    def setUp(self) -> None:
        self.prober = wire.Link(self.broker.address(), wire.V311)
        self.addCleanup(self.prober.drop)
        self.prober.connect(adapters.unique("probe"))

    def probe(self, topic: str, payload: str) -> None:
        self.prober.publish(topic, payload.encode(), 1)

    def subscribe(self, client: Client, transport: str, version: int, topic: str, qos: int) -> adapters.Subscriber:
        found = client.subscribe(self.broker, transport, version, topic, qos)
        self.addCleanup(found.close)
        return found


def one(client: Client, transport: str, version: int) -> object:
    """A test: this client publishes at each QoS and reads it back."""

    def test(self: MatrixCase) -> None:
        adapters.require(client)
        topic = adapters.unique("matrix/")
        reader = self.subscribe(client, transport, version, topic, 2)
        adapters.settle(self.broker, topic, [reader], self.probe)
        for qos in range(3):
            payloads = [f"qos{qos}-{number}-äß" for number in range(3)]
            client.publish(self.broker, transport, version, topic, payloads, qos)
            self.assertEqual([reader.next() for _ in payloads], payloads)

    return test


class Matrix(MatrixCase):
    """Generated: one test per client, transport and version."""


for _client in CLIENTS:
    for _transport in _client.transports:
        for _version in _client.versions:
            _name = f"test_{_client.name}_{_transport}_{SHOWN[_version]}".replace(" ", "_").replace(".", "_")
            setattr(Matrix, _name, one(_client, _transport, _version))


class Cross(MatrixCase):
    """Everybody reads what anybody publishes, whatever the two speak."""

    def test_every_pair(self) -> None:
        present = [client for client in CLIENTS if client.missing() is None]
        topic = adapters.unique("cross/")
        readers = {
            (client.name, version): self.subscribe(client, client.transports[-1], version, topic, 2)
            for client in present
            for version in VERSIONS
        }
        adapters.settle(self.broker, topic, list(readers.values()), self.probe)
        awaited = []
        for client in present:
            for version in VERSIONS:
                for qos in range(3):
                    payload = f"{client.name}-{SHOWN[version]}-qos{qos}"
                    client.publish(self.broker, client.transports[0], version, topic, [payload], qos)
                    awaited.append(payload)
        for who, reader in readers.items():
            with self.subTest(reader=who):
                # QoS 0, 1 and 2 of one publisher may overtake each other in a client; none may be lost or doubled.
                self.assertEqual(Counter(reader.next() for _ in awaited), Counter(awaited))
        self.assertGreaterEqual(len(present), 1, "no client at all is installed")

    def test_retained_for_everybody(self) -> None:
        for client in CLIENTS:
            if client.missing():
                continue
            topic = adapters.unique("retained/")
            client.publish(self.broker, client.transports[0], 4, topic, ["kept"], 1, retain=True)
            for reader in CLIENTS:
                if reader.missing():
                    continue
                for version in VERSIONS:
                    with self.subTest(writer=client.name, reader=reader.name, version=SHOWN[version]):
                        self.assertEqual(self.subscribe(reader, "tcp", version, topic, 1).next(), "kept")

    def test_transports_meet(self) -> None:
        client = CLIENTS[0]
        adapters.require(client)
        topic = adapters.unique("meet/")
        readers = [self.subscribe(client, transport, 5, topic, 1) for transport in TRANSPORTS]
        for transport in TRANSPORTS:
            client.publish(self.broker, transport, 4, topic, [transport], 1)
            self.assertEqual([reader.next() for reader in readers], [transport] * len(readers))


if __name__ == "__main__":
    unittest.main()
