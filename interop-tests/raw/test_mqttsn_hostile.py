"""MQTT-SN: datagrams of any kind from anywhere. What is no message is dropped and counted; nothing grows without bound,
nobody gets more than was sent, and those who behave are served all the while."""

from __future__ import annotations

import random
import socket
import struct

from mqttsn_case import SnCase, settings

from harness import mqttsn
from harness.case import unique
from harness.sensor import Sensor
from harness.wire import V5

TRUNCATED = [
    mqttsn.connect("client"), mqttsn.willtopic("a/b", 1), mqttsn.register("a/b", 3), mqttsn.regack(1, 2),
    mqttsn.publish(1, b"", 1, 3), mqttsn.puback(1, 2), mqttsn.ack(mqttsn.PUBREC, 1), mqttsn.ack(mqttsn.PUBREL, 1),
    mqttsn.ack(mqttsn.PUBCOMP, 1), mqttsn.subscribe("a/b", 1, 3), mqttsn.unsubscribe("a/b", 3), mqttsn.searchgw(),
    mqttsn.disconnect(10), mqttsn.willtopic("a", kind=mqttsn.WILLTOPICUPD), mqttsn.willmsg(b"a", mqttsn.WILLMSGUPD),
]  # fmt: skip
GATEWAYS_OWN = [
    mqttsn.frame(mqttsn.CONNACK, b"\0"), mqttsn.frame(mqttsn.WILLTOPICREQ), mqttsn.frame(mqttsn.WILLMSGREQ),
    mqttsn.frame(mqttsn.SUBACK, bytes(6)), mqttsn.frame(mqttsn.UNSUBACK, bytes(2)),
    mqttsn.frame(mqttsn.WILLTOPICRESP, b"\0"), mqttsn.frame(mqttsn.WILLMSGRESP, b"\0"),
]  # fmt: skip


def broken() -> list[bytes]:
    """Datagrams that are no message."""
    out = [
        b"",
        b"\0",
        b"\1",
        b"\2",
        b"\xff",
        b"\0\0",
        b"\1\0",
        b"\1\0\0",
        b"\1\0\2\4",
        b"\1\0\3",
        b"\1\0\4",
        b"\1\xff\xff\4",
    ]
    out += [b"\1\0\0" + message[1:] for message in TRUNCATED] + [b"\0" + message[1:] for message in TRUNCATED]
    for message in TRUNCATED:
        # Cut, with the old and with the right length; longer than it says; shorter.
        out += [message[:size] for size in range(1, len(message))]
        out += [message + b"x", bytes([message[0] + 1]) + message[1:], bytes([message[0] - 1]) + message[1:]]
    out += [mqttsn.frame(kind, body) for kind in mqttsn.RESERVED for body in (b"", b"\0" * 5)]
    out += [
        b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id",
        b"\x16\xfe\xff\0\0\0\0\0\0\0\0\0\1",
        b"GET / HTTP/1.1\r\n\r\n",
    ]
    out += [bytes([size % 256]) * size for size in (3, 255, 256, 257, 1_500, 9_000, 65_000)]
    return out


def odd_flags() -> list[bytes]:
    """Well-formed messages of all flags."""
    out = [mqttsn.connect("flags", bits=bits) for bits in range(256)]
    out += [mqttsn.publish(1, b"x", msg_id=3, bits=bits) for bits in range(256)]
    out += [mqttsn.subscribe("aa", msg_id=3, bits=bits) for bits in range(256)]
    out += [
        mqttsn.frame(kind, bytes([bits]) + b"topic")
        for bits in range(256)
        for kind in (mqttsn.WILLTOPIC, mqttsn.WILLTOPICUPD)
    ]
    return out


class Malformed(SnCase):
    def test_from_strangers(self) -> None:
        for number, datagram in enumerate(broken()):
            link = self.endpoint()
            link.send(datagram)
            link.send(mqttsn.searchgw())
            answers = 0
            while link.receive().kind != mqttsn.GWINFO:
                answers += 1
            self.assertLessEqual(answers, 1, f"{number}: {datagram[:20].hex(' ')}")
            link.close()

    def test_from_a_connected_sensor(self) -> None:
        for datagram in broken():
            sensor = self.stranger()
            sensor.connect()
            sensor.send(datagram, mqttsn.searchgw())
            while sensor.receive().kind != mqttsn.GWINFO:
                pass
            sensor.close()

    def test_all_flags_in_all_states(self) -> None:
        for prepare in (lambda sensor: None, lambda sensor: sensor.connect(), self.asleep, self.awaiting_will):
            for datagram in odd_flags():
                sensor = self.stranger()
                prepare(sensor)
                sensor.send(datagram, mqttsn.searchgw())
                while sensor.receive().kind != mqttsn.GWINFO:
                    pass
                sensor.close()

    def asleep(self, sensor: Sensor) -> None:
        sensor.connect()
        sensor.sleep(60)

    def awaiting_will(self, sensor: Sensor) -> None:
        sensor.send(mqttsn.connect(sensor.client_id, will=True))
        sensor.expect(mqttsn.WILLTOPICREQ)

    def test_everything_in_every_state(self) -> None:
        messages = [*TRUNCATED, *GATEWAYS_OWN, mqttsn.pingreq(), mqttsn.pingreq("x"), mqttsn.frame(mqttsn.PINGRESP),
                    mqttsn.disconnect(), mqttsn.willmsg(b""), mqttsn.willtopic(None),
                    mqttsn.willtopic(None, kind=mqttsn.WILLTOPICUPD)]  # fmt: skip
        for prepare in (lambda sensor: None, lambda sensor: sensor.connect(), self.asleep, self.awaiting_will):
            for message in messages:
                for copies in (1, 2):
                    sensor = self.stranger()
                    prepare(sensor)
                    sensor.send(*[message] * copies, mqttsn.searchgw())
                    while sensor.receive().kind != mqttsn.GWINFO:
                        pass
                    sensor.close()

    def test_noise(self) -> None:
        generator = random.Random(1)
        sensor = self.sensor()
        seeds = [*TRUNCATED, *GATEWAYS_OWN]
        for _ in range(5_000):
            data = bytearray(generator.choice(seeds))
            for _ in range(generator.randint(1, 4)):
                data[generator.randrange(len(data))] = generator.randrange(256)
            sensor.socket.sendto(bytes(data), self.gateway)
        for _ in range(2_000):
            sensor.socket.sendto(generator.randbytes(generator.randrange(40)), self.gateway)
        sensor.close()

    def test_they_are_counted(self) -> None:
        before = self.metrics()
        link = self.endpoint()
        link.send(*[b"\xff\x0c\0"] * 20)
        link.send(mqttsn.searchgw())
        link.expect(mqttsn.GWINFO)
        after = self.metrics()
        moved = {name: after[name] - before.get(name, 0) for name in after if after[name] - before.get(name, 0) == 20}
        self.assertTrue(moved, "no counter moved by 20")


class Amplification(SnCase):
    def test_no_answer_is_larger_than_its_question(self) -> None:
        table = [*TRUNCATED, *GATEWAYS_OWN, mqttsn.connect(""), mqttsn.connect("amp", will=True),
                 mqttsn.pingreq(), mqttsn.pingreq("x"), mqttsn.disconnect()]  # fmt: skip
        for message in table:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
                stream.settimeout(5)
                stream.bind(("127.0.0.1", 0))
                stream.sendto(message, self.gateway)
                stream.sendto(mqttsn.searchgw(), self.gateway)
                got = 0
                while (data := stream.recv(1 << 16))[1] != mqttsn.GWINFO or len(data) != 3:
                    got += len(data)
                self.assertLessEqual(got, len(message) + 1, mqttsn.NAMES.get(message[1]))

    def test_a_handshake_that_stops_is_forgotten(self) -> None:
        link = self.endpoint()
        link.send(mqttsn.connect(unique(), will=True))
        count = 0
        try:
            while True:
                found = link.receive(8)
                count += found.kind == mqttsn.WILLTOPICREQ
        except mqttsn.TimedOut:
            pass
        self.assertLessEqual(count, 7)


class Flood(SnCase):
    settings = settings(idle_timeout="2s", listeners__udp__default__max_connections="20000")

    def resident(self) -> int:
        return self.broker.resident_kib()

    def sources(self, count: int) -> list[tuple[str, int]]:
        return [(f"127.{1 + number // 60_000}.{number // 250 % 240}.{1 + number % 250}", 0) for number in range(count)]

    def flood(self, message: bytes, count: int = 10_000, copies: int = 1) -> None:
        for address in self.sources(count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
                stream.bind(address)
                for _ in range(copies):
                    stream.sendto(message, self.gateway)

    def test_of_what_no_state_is_for(self) -> None:
        self.flood(mqttsn.searchgw(), 1_000)
        before = self.resident()
        for message in (b"\xff\xff", mqttsn.searchgw(), mqttsn.pingreq("x"), mqttsn.publish("fl", b"x", -1)):
            self.flood(message)
            assert self.bystander is not None
            self.bystander.ping()
        self.assertLess(self.resident() - before, 8_192)

    def test_of_handshakes_that_stop(self) -> None:
        self.flood(mqttsn.connect("warm", will=True), 500)
        before = self.resident()
        will = mqttsn.connect("flood" + "x" * 15, will=True)
        for _ in range(3):
            self.flood(will)
            assert self.bystander is not None
            self.bystander.ping()
        self.assertLess(self.resident() - before, 40 * 1_024)

    def test_of_client_ids(self) -> None:
        links = [self.endpoint(host=f"127.0.{1 + number // 200}.{1 + number % 200}") for number in range(500)]
        for number, link in enumerate(links):
            link.send(mqttsn.connect(f"flood-{number}"))
        for link in links:
            self.assertEqual(link.expect(mqttsn.CONNACK).code, mqttsn.ACCEPTED)
        assert self.bystander is not None
        self.bystander.ping()
        for link in links:
            link.send(mqttsn.disconnect())
            link.expect(mqttsn.DISCONNECT)

    def test_a_sensor_that_takes_nothing(self) -> None:
        topic = unique("mute/")
        sensor = self.sensor(duration=0)
        sensor.subscribe(topic, 0)
        before = self.resident()
        publisher = self.client(V5)
        for _ in range(20_000):
            publisher.send(
                b"\x30"
                + struct.pack("B", 3 + len(topic) + 100)
                + struct.pack(">H", len(topic))
                + topic.encode()
                + b"\0"
                + bytes(100)
            )
        publisher.settle()
        self.assertLess(self.resident() - before, 20 * 1_024)


class Crowded(SnCase):
    with_bystander = False
    settings = settings(listeners__udp__default__max_connections="3")

    def test_no_more_than_allowed(self) -> None:
        sensors = [self.sensor() for _ in range(3)]
        for sensor in sensors:
            # Of whom there is no more than one datagram would give way.
            sensor.ping()
        link = self.endpoint()
        link.send(mqttsn.connect(unique()), mqttsn.searchgw())
        found = link.receive()
        if found.kind == mqttsn.CONNACK:
            self.assertEqual(found.code, mqttsn.CONGESTION)
            found = link.receive()
        self.assertEqual(found.kind, mqttsn.GWINFO)
        for sensor in sensors:
            sensor.ping()
        sensors[0].leave()
        self.sensor().ping()
