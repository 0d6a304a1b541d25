"""MQTT-SN: how clients find the gateway (§6.1)."""

from __future__ import annotations

import socket
import struct
import time

from mqttsn_case import GATEWAY_ID, SnCase, settings

from harness import broker as brokers
from harness import mqttsn

GROUP = "239.88.77.66"


def listener(group: str | None = None) -> socket.socket:
    """A client that hears broadcasts on the loopback."""
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((group or "127.255.255.255", 0))
    if group:
        found.setsockopt(
            socket.IPPROTO_IP,
            socket.IP_ADD_MEMBERSHIP,
            struct.pack("4s4s", *map(socket.inet_aton, (group, "127.0.0.1"))),
        )
    return found


class Search(SnCase):
    def test_each_searcher_is_answered(self) -> None:
        links = [self.endpoint() for _ in range(20)]
        for radius, link in enumerate(links):
            link.send(mqttsn.searchgw(radius))
        for link in links:
            self.assertEqual(link.expect(mqttsn.GWINFO).gateway, GATEWAY_ID)

    def test_searching_is_no_connection(self) -> None:
        link = self.endpoint()
        link.send(mqttsn.searchgw(), mqttsn.pingreq())
        self.assertEqual({link.receive().kind, link.receive().kind}, {mqttsn.GWINFO, mqttsn.DISCONNECT})

    def test_a_connected_sensor_may_search(self) -> None:
        sensor = self.sensor()
        sensor.send(mqttsn.searchgw(1))
        sensor.expect(mqttsn.GWINFO)
        sensor.ping()

    def test_what_other_gateways_say_is_not_answered(self) -> None:
        link = self.endpoint()
        link.send(
            mqttsn.frame(mqttsn.ADVERTISE, b"\x09\x03\x84"), mqttsn.frame(mqttsn.GWINFO, b"\x09"),
            mqttsn.frame(mqttsn.GWINFO, b"\x09\x0a\0\0\1"), mqttsn.frame(mqttsn.SEARCHGW),
            mqttsn.frame(mqttsn.SEARCHGW, b"\0\0"), mqttsn.searchgw(),
        )  # fmt: skip
        link.expect(mqttsn.GWINFO)
        link.send(mqttsn.searchgw())
        link.expect(mqttsn.GWINFO)


class Delayed(SnCase):
    settings = settings(gwinfo_delay="2s")

    def test_answers_are_spread(self) -> None:
        links = [self.endpoint() for _ in range(30)]
        began = time.monotonic()
        for link in links:
            link.send(mqttsn.searchgw())
        waits = []
        for link in links:
            link.expect(mqttsn.GWINFO)
            waits.append(time.monotonic() - began)
        self.assertLess(max(waits), 3)
        self.assertGreater(max(waits), 0.5, "30 random times below 2 s, and none above 0.5 s")


class Advertise(SnCase):
    with_bystander = False

    def advertised(self, group: str | None) -> None:
        with listener(group) as ear:
            address = "%s:%d" % ear.getsockname()
            broker = brokers.start(settings(broadcast=address, advertise_interval="1s"))
            self.addCleanup(broker.close)
            ear.settimeout(5)
            times = []
            for _ in range(4):
                found = mqttsn.decode(ear.recv(100))
                self.assertEqual((found.kind, found.gateway, found.duration), (mqttsn.ADVERTISE, GATEWAY_ID, 1))
                times.append(time.monotonic())
            # Once per interval, however many sockets the gateway has.
            for earlier, later in zip(times, times[1:], strict=False):
                self.assertAlmostEqual(later - earlier, 1, delta=0.5)

    def test_to_a_broadcast_address(self) -> None:
        self.advertised(None)

    def test_to_a_multicast_group(self) -> None:
        self.advertised(GROUP)

    def test_a_search_in_the_group_is_heard(self) -> None:
        port = brokers.free_port()
        broker = brokers.start(settings(broadcast=f"{GROUP}:{port}", listeners__udp__default__bind=f"0.0.0.0:{port}"))
        self.addCleanup(broker.close)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as searcher:
            searcher.settimeout(5)
            try:
                searcher.sendto(mqttsn.searchgw(1), (GROUP, port))
            except OSError as error:
                self.skipTest(f"no multicast on this machine: {error}")
            self.assertEqual(mqttsn.decode(searcher.recv(100)).gateway, GATEWAY_ID)

    def test_several_gateways(self) -> None:
        with listener() as ear:
            address = "%s:%d" % ear.getsockname()
            for number in (1, 2, 3):
                self.addCleanup(
                    brokers.start(settings(broadcast=address, advertise_interval="1s", gateway_id=str(number))).close
                )
            ear.settimeout(5)
            heard = set()
            while heard != {1, 2, 3}:
                heard.add(mqttsn.decode(ear.recv(100)).gateway)
