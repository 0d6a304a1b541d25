"""MQTT-SN: who may join and what they may do; the bounds of what one may hold."""

from __future__ import annotations

import pathlib
import subprocess
import tempfile
from typing import ClassVar

from mqttsn_case import SnCase, settings

from harness import broker as brokers
from harness import mqttsn
from harness.case import unique
from harness.mqttsn import CONGESTION
from harness.sensor import Will
from harness.wire import V5

OVERRIDE = "gateway.mqttsn.clientinfo_override."


def hashed(name: str) -> str:
    """A line of the users file, whose password is the name."""
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "users")
        command = [brokers.binary(), "passwd", "--file", str(file), "--stdin", name]
        subprocess.run(command, input=f"{name}\n", text=True, capture_output=True, check=True)
        return file.read_text(encoding="utf-8")


class Anonymous(SnCase):
    with_bystander = False
    settings: ClassVar[dict[str, str]] = {**settings(), "allow_anonymous": "false"}
    users = ""

    def test_nobody_joins(self) -> None:
        link = self.endpoint()
        link.send(mqttsn.connect(unique()))
        self.assertNotEqual(link.expect(mqttsn.CONNACK).code, mqttsn.ACCEPTED)
        link.send(mqttsn.connect(unique(), will=True))
        found = link.receive()
        if found.kind == mqttsn.WILLTOPICREQ:
            link.send(mqttsn.willtopic("will"))
            link.expect(mqttsn.WILLMSGREQ)
            link.send(mqttsn.willmsg(b"x"))
            found = link.receive()
        self.assertEqual(found.kind, mqttsn.CONNACK)
        self.assertNotEqual(found.code, mqttsn.ACCEPTED)
        self.await_end_of(link)


class Known(SnCase):
    """The user name and password come from the configuration."""

    with_bystander = False
    users = "made below"
    acl = """
{allow, {username, "sensors"}, publish, ["up/#", "as"]}.
{allow, {username, "sensors"}, subscribe, ["down/#"]}.
{allow, {username, "app"}, all, ["#"]}.
{deny, all}.
"""

    @classmethod
    def setUpClass(cls) -> None:
        cls.settings = {
            **settings(), "allow_anonymous": "false",
            f"{OVERRIDE}username": "sensors", f"{OVERRIDE}password": "sensors",
        }  # fmt: skip
        cls.users = hashed("sensors") + hashed("app")
        super().setUpClass()

    def test_rules_hold(self) -> None:
        app = self.client(V5, username="app", password=b"app")
        app.subscribe(("#", 2))
        sensor = self.sensor(will=Will("up/will", b"w", 1), duration=3)
        name = unique("up/")
        self.assertEqual(sensor.publish(sensor.register(name), b"yes", 1), mqttsn.ACCEPTED)
        self.assertEqual(app.take().payload, b"yes")
        self.assertNotEqual(sensor.publish("no", b"no", 1), mqttsn.ACCEPTED)
        self.endpoint().send(mqttsn.publish("no", b"no", -1), mqttsn.publish("as", b"minus one", -1))
        self.assertEqual(app.take().payload, b"minus one")
        sensor.subscribe(unique("down/"), 1)
        sensor.send(mqttsn.subscribe("up/x", 1, 99))
        self.assertNotEqual(sensor.expect(mqttsn.SUBACK).code, mqttsn.ACCEPTED)
        sensor.await_kind(mqttsn.DISCONNECT, seconds=10)
        self.assertEqual(app.take().payload, b"w")


class TopicIds(SnCase):
    settings = settings(max_topic_ids="10")

    def test_they_run_out_as_congestion(self) -> None:
        sensor, prefix = self.sensor(), unique("few/")
        ids = {sensor.register(f"{prefix}/{number}") for number in range(10)}
        self.assertEqual(len(ids), 10)
        sensor.send(mqttsn.register(f"{prefix}/more", 50))
        found = sensor.expect(mqttsn.REGACK)
        self.assertEqual((found.code, found.msg_id), (CONGESTION, 50))
        sensor.subscribe(f"{prefix}/more", 1, code=CONGESTION)
        # What has an id, needs none, or is of another kind goes on.
        self.assertIn(sensor.register(f"{prefix}/3"), ids)
        self.assertIn(sensor.subscribe(f"{prefix}/4", 1).topic_id, ids)
        self.assertEqual(sensor.publish("ab", b"x", 1), mqttsn.ACCEPTED)
        self.assertEqual(sensor.publish(1, b"x", 1, topic_type=mqttsn.PREDEFINED), mqttsn.ACCEPTED)

    def test_a_message_that_gets_no_id_holds_nothing_up(self) -> None:
        sensor, prefix = self.sensor(), unique("flood/")
        sensor.subscribe(f"{prefix}/#", 1)
        publisher = self.client(V5)
        for number in range(20):
            publisher.publish(f"{prefix}/{number}", b"%d" % number, 1)
        publisher.publish(f"{prefix}/0", b"end", 1)
        got: list[bytes] = []
        while b"end" not in got:
            got.append(sensor.take().payload)
        self.assertEqual(got, [*(b"%d" % number for number in range(10)), b"end"])
