"""Size, flow and reading limits: what is too much is refused with its code, and memory stays bounded."""

from __future__ import annotations

import socket
import ssl
import time
import unittest

from harness import broker as brokers
from harness import case, wire
from harness.wire import V5, V311, VERSIONS

KIB = 1024


class PacketSize(case.BrokerCase):
    settings = {"mqtt.max_packet_size": "64KB"}

    def test_told_in_connack(self) -> None:
        link = self.link(V5)
        found = link.connect(case.unique())
        self.assertEqual(found.get(wire.MAXIMUM_PACKET), 64 * KIB)

    def test_too_large_is_refused_before_it_is_read(self) -> None:
        # Only the fixed header is sent: the claimed length alone decides.
        for version in VERSIONS:
            for claimed in (64 * KIB, 1 << 20, 268_435_455):
                with self.subTest(version=version, claimed=claimed):
                    link = self.client(version)
                    link.send(b"\x30" + wire.varint(claimed))
                    sent = link.until_closed()
                    if version == V5:
                        self.assertEqual([(found.kind, found.code) for found in sent], [(wire.DISCONNECT, 0x95)])
                    else:
                        self.assertEqual(sent, [])

    def test_largest_packet_passes(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                link = self.client(version)
                topic = case.unique("t")
                link.subscribe((topic, 0))
                overhead = len(wire.publish(version, topic, b"x" * 60_000)) - 60_000
                payload = b"x" * (64 * KIB - overhead)
                link.send(wire.publish(version, topic, payload))
                self.assertEqual(link.take().payload, payload)

    def test_claimed_length_in_connect_allocates_nothing(self) -> None:
        if self.broker.pid is None:
            self.skipTest("the memory of an external broker is not visible")
        before = self.broker.resident_kib()
        for _ in range(300):
            self.link(V311).send_hostile(b"\x10" + wire.varint(60 * KIB) + b"\0\4MQTT")
        self.assertEqual(self.client(V5).settle(), [])
        self.assertLess(self.broker.resident_kib() - before, 8 * KIB)

    def test_client_maximum_packet_size(self) -> None:
        link = self.link(V5)
        link.connect(case.unique(), props=[(wire.MAXIMUM_PACKET, 100)])
        topic = case.unique("t")
        link.subscribe((topic, 1))
        publisher = self.client(V5)
        for payload in (b"a" * 40, b"b" * 200, b"c" * 40):
            publisher.publish(topic, payload, 1)
        # [MQTT-3.1.2-25]: the large one is dropped as if it had been delivered.
        self.assertEqual([link.take().payload[:1], link.take().payload[:1]], [b"a", b"c"])


class ReceiveMaximum(case.BrokerCase):
    settings = {"mqtt.receive_maximum": "3"}

    def test_client_exceeds_it(self) -> None:
        link = self.link(V5)
        self.assertEqual(link.connect(case.unique()).get(wire.RECEIVE_MAXIMUM), 3)
        topic = case.unique("t")
        for pid in range(1, 4):
            link.send(wire.publish(V5, topic, b"", 2, pid))
            self.assertEqual(link.expect(wire.PUBREC).pid, pid)
        link.send(wire.publish(V5, topic, b"", 2, 4))
        sent = link.until_closed()
        self.assertEqual([(found.kind, found.code) for found in sent], [(wire.DISCONNECT, 0x93)])

    def test_pubcomp_frees_a_place(self) -> None:
        link = self.client(V5)
        topic = case.unique("t")
        for pid in range(1, 4):
            link.send(wire.publish(V5, topic, b"", 2, pid))
            link.expect(wire.PUBREC)
        link.send(wire.ack(wire.PUBREL, 2))
        self.assertEqual(link.expect(wire.PUBCOMP).pid, 2)
        link.send(wire.publish(V5, topic, b"", 2, 9))
        self.assertEqual(link.expect(wire.PUBREC).pid, 9)

    def test_the_same_id_again_takes_no_second_place(self) -> None:
        link = self.client(V5)
        for _ in range(5):
            link.send(wire.publish(V5, "t", b"", 2, 1, dup=True))
            self.assertEqual(link.expect(wire.PUBREC).pid, 1)


class NeverReads(case.BrokerCase):
    settings = {"mqtt.max_mqueue_bytes": "4MB", "mqtt.max_mqueue_len": "1000", "mqtt.max_packet_size": "1MB"}

    def test_memory_stays_bounded_and_strangers_are_served(self) -> None:
        topic = case.unique("flood")
        stuck = []
        for version, qos in ((V5, 0), (V311, 0), (V5, 1), (V311, 2)):
            link = self.client(version)
            link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.subscribe((topic, qos))
            stuck.append(link)
        reader = self.client(V5)
        reader.subscribe((topic, 1))
        publisher = self.client(V5)
        before = self.broker.resident_kib() if self.broker.pid else 0
        payload = b"x" * (64 * KIB)
        for number in range(1200):
            publisher.publish(topic, number.to_bytes(4, "big") + payload, 1)
            self.assertEqual(reader.take().payload[:4], number.to_bytes(4, "big"))
        if self.broker.pid:
            # Per stuck client its queue (4 MB) and what waits to be written; 75 MB went through.
            self.assertLess(self.broker.resident_kib() - before, 40 * KIB)

    def test_a_client_that_sends_and_never_reads(self) -> None:
        # Answers that nobody takes must not pile up: the broker stops reading or closes.
        before = self.broker.resident_kib() if self.broker.pid else 0
        link = self.client(V311)
        link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.socket.settimeout(1)
        pings = wire.PINGREQ_BYTES * 32_768
        deadline = time.monotonic() + 15
        sent = 0
        try:
            while sent < 64 << 20 and time.monotonic() < deadline:
                sent += link.socket.send(pings)
        except OSError:
            pass
        if self.broker.pid:
            self.assertLess(self.broker.resident_kib() - before, 32 * KIB)


class OtherProtocols(case.BrokerCase):
    """Other protocols on the MQTT ports."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.settings = brokers.tls_listener("default")
        super().setUpClass()

    def answered(self, listener: str, data: bytes) -> bytes:
        """All bytes that come back until the connection ends, which has to happen soon."""
        with socket.create_connection(self.broker.address(listener), timeout=5) as raw:
            raw.sendall(data)
            out = b""
            try:
                while more := raw.recv(4096):
                    out += more
            except ConnectionResetError:
                pass
            return out

    def test_http_on_the_mqtt_port(self) -> None:
        self.assertEqual(self.answered("tcp:default", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), b"")
        self.assertEqual(self.answered("tcp:default", b"POST /mqtt HTTP/1.1\r\nContent-Length: 9\r\n\r\n"), b"")

    def test_tls_on_the_mqtt_port(self) -> None:
        context = ssl.create_default_context()
        outgoing = ssl.MemoryBIO()
        hello = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with self.assertRaises(ssl.SSLWantReadError):
            hello.do_handshake()
        self.assertEqual(self.answered("tcp:default", outgoing.read()), b"")

    def test_ssh_and_noise_on_the_mqtt_port(self) -> None:
        self.assertEqual(self.answered("tcp:default", b"SSH-2.0-OpenSSH_9.2\r\n" + b"\0" * 64), b"")

    def test_mqtt_on_the_tls_port(self) -> None:
        for version in VERSIONS:
            data = self.answered("ssl:default", wire.connect(version, case.unique()))
            # A TLS alert record (type 21) or nothing, never CONNACK.
            self.assertIn(data[:1], (b"", b"\x15"), data)

    def test_http_on_the_tls_port(self) -> None:
        self.assertIn(self.answered("ssl:default", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[:1], (b"", b"\x15"))


class Slow(case.BrokerCase):
    """Time limits; the time is the subject here."""

    settings = {"mqtt.idle_timeout": "1s"}

    def test_no_connect_in_time(self) -> None:
        for data in (b"", b"\x10", wire.connect(V5, "late")[:-1]):
            with self.subTest(sent=data):
                link = self.link(V5)
                link.send(data)
                started = time.monotonic()
                link.expect_closed(6)
                self.assertGreater(time.monotonic() - started, 0.8)

    def test_keep_alive(self) -> None:
        # [MQTT-3.1.2-22]: one and a half times the keep alive; MQTT 5 is told 0x8D.
        for version in VERSIONS:
            with self.subTest(version=version):
                watcher = self.client(V5)
                topic = case.unique("will")
                watcher.subscribe((topic, 0))
                link = self.link(version)
                link.connect(case.unique(), keep_alive=1, will=wire.Will(topic, b"late"))
                started = time.monotonic()
                sent = link.until_closed(6)
                took = time.monotonic() - started
                self.assertTrue(1.3 < took < 4, took)
                self.assertEqual([found.code for found in sent], [0x8D] if version == V5 else [])
                self.assertEqual(watcher.take().payload, b"late")

    def test_pings_keep_it_alive(self) -> None:
        link = self.link(V311)
        link.connect(case.unique(), keep_alive=1)
        started = time.monotonic()
        while time.monotonic() - started < 2.5:
            link.ping()
            time.sleep(0.5)  # the keep alive itself is the subject
        link.ping()

    def test_publications_received_do_not_count(self) -> None:
        # Only what the client sends resets the timer: §3.1.2.10.
        topic = case.unique("t")
        link = self.link(V5)
        link.connect(case.unique(), keep_alive=1)
        link.subscribe((topic, 0))
        publisher = self.client(V5)
        started = time.monotonic()
        try:
            while time.monotonic() - started < 5:
                publisher.publish(topic, b"", 1)
                found = link.receive()
                if found.kind == wire.DISCONNECT:
                    self.assertEqual(found.code, 0x8D)
                    break
                time.sleep(0.1)  # the keep alive itself is the subject
        except wire.Closed:
            pass
        self.assertLess(time.monotonic() - started, 4)


class ServerKeepAlive(case.BrokerCase):
    settings = {"mqtt.server_keepalive": "2s"}
    # It would not send anything for that long.
    with_bystander = False

    def test_told_and_kept(self) -> None:
        link = self.link(V5)
        found = link.connect(case.unique(), keep_alive=60)
        self.assertEqual(found.get(wire.SERVER_KEEP_ALIVE), 2)
        started = time.monotonic()
        self.assertEqual([sent.code for sent in link.until_closed(8)], [0x8D])
        self.assertTrue(2.5 < time.monotonic() - started < 6)


if __name__ == "__main__":
    unittest.main()
