"""MQTT-SN: sleeping sensors (§6.14): what is kept for them, how they wake, what ends their sleep, who may wake them."""

from __future__ import annotations

import time

from mqttsn_case import RETRY_SECONDS, SnCase, settings

from harness import mqttsn, wire
from harness.case import unique
from harness.sensor import Sensor, Will
from harness.wire import V5


class SleepCase(SnCase):
    def sleeper(self, topic: str, qos: int = 2, duration: int = 60, **options: object) -> Sensor:
        """Asleep, with one subscription."""
        sensor = self.sensor(**options)
        sensor.subscribe(topic, qos)
        sensor.sleep(duration)
        return sensor

    def publish(self, topic: str, *payloads: bytes, qos: int = 1) -> None:
        publisher = self.client(V5)
        for payload in payloads:
            publisher.publish(topic, payload, qos)
        publisher.leave()


class Kept(SleepCase):
    def test_each_qos_is_kept_and_handed_out_before_pingresp(self) -> None:
        topic = unique("kept/")
        for clean in (True, False):
            with self.subTest(clean=clean):
                sensor = self.sleeper(topic, clean=clean)
                publisher = self.client(V5)
                for qos in range(3):
                    publisher.publish(topic, b"%d" % qos, qos)
                publisher.leave()
                self.assertEqual(
                    sorted((found.payload, found.qos) for found in sensor.wake()), [(b"0", 0), (b"1", 1), (b"2", 2)]
                )
                self.assertEqual(sensor.wake(), [])
                sensor.connect()
                sensor.leave()

    def test_nothing_is_sent_while_it_sleeps(self) -> None:
        topic = unique("quiet/")
        sensor = self.sleeper(topic)
        self.publish(topic, b"a", b"b")
        # Its answer would come behind what was sent without being asked for.
        sensor.send(mqttsn.searchgw())
        sensor.expect(mqttsn.GWINFO)
        self.assertEqual([found.payload for found in sensor.wake()], [b"a", b"b"])

    def test_many_sleeps_in_a_row(self) -> None:
        topic = unique("rounds/")
        sensor = self.sleeper(topic)
        for number in range(20):
            self.publish(topic, b"%d" % number)
            self.assertEqual([found.payload for found in sensor.wake()], [b"%d" % number])

    def test_order_of_many(self) -> None:
        topic = unique("many/")
        sensor = self.sleeper(topic, 1)
        self.publish(topic, *(b"%d" % number for number in range(200)))
        self.assertEqual([found.payload for found in sensor.wake()], [b"%d" % number for number in range(200)])

    def test_wildcards_register_while_awake(self) -> None:
        prefix = unique("wild/")
        sensor = self.sleeper(f"{prefix}/#")
        self.publish(f"{prefix}/a", b"a")
        self.publish(f"{prefix}/b", b"b")
        self.assertEqual([(found.topic, found.payload) for found in sensor.wake()],
                         [(f"{prefix}/a", b"a"), (f"{prefix}/b", b"b")])  # fmt: skip
        # The ids hold in the next sleep too.
        self.publish(f"{prefix}/a", b"again")
        sensor.send(mqttsn.pingreq(sensor.client_id))
        found = sensor.expect(mqttsn.PUBLISH)
        self.assertEqual(sensor.names[found.topic_id], f"{prefix}/a")
        sensor.send(mqttsn.puback(found.topic_id, found.msg_id))
        sensor.expect(mqttsn.PINGRESP)

    def test_topic_ids_outlive_the_sleep(self) -> None:
        topic = unique("ids/")
        watcher = self.watch(topic)
        sensor = self.sensor(clean=False)
        topic_id = sensor.register(topic)
        sensor.sleep(60)
        sensor.wake()
        sensor.connect(clean=False)
        self.assertEqual(sensor.publish(topic_id, b"up", 1), mqttsn.ACCEPTED)
        self.seen(watcher, b"up")

    def test_what_was_not_acknowledged_stays(self) -> None:
        topic = unique("again/")
        sensor = self.sleeper(topic, 1, duration=60)
        self.publish(topic, b"stays")
        sensor.send(mqttsn.pingreq(sensor.client_id))
        found = sensor.expect(mqttsn.PUBLISH)
        self.assertEqual(found.payload, b"stays")
        # No PUBACK: to sleep at once, as a sensor does whose battery says so.
        sensor.send(mqttsn.disconnect(60))
        sensor.await_kind(mqttsn.DISCONNECT)
        self.assertEqual([found.payload for found in sensor.wake()], [b"stays"])
        self.assertEqual(sensor.wake(), [])

    def test_qos_2_that_was_interrupted_is_once(self) -> None:
        topic = unique("once/")
        sensor = self.sleeper(topic, 2)
        self.publish(topic, b"once", qos=2)
        sensor.send(mqttsn.pingreq(sensor.client_id))
        found = sensor.expect(mqttsn.PUBLISH)
        sensor.send(mqttsn.ack(mqttsn.PUBREC, found.msg_id))
        sensor.expect(mqttsn.PUBREL)
        sensor.send(mqttsn.disconnect(60))
        sensor.await_kind(mqttsn.DISCONNECT)
        self.assertEqual(sensor.wake(), [], "PUBREC was seen: nothing may come but PUBREL")


class Ends(SleepCase):
    def test_sleeping_too_long_is_the_end(self) -> None:
        will, topic = unique("will/"), unique("late/")
        watcher = self.watch(will)
        sensor = self.sleeper(topic, duration=1, will=Will(will, b"overslept"))
        began = time.monotonic()
        self.seen(watcher, b"overslept")
        self.assertGreater(time.monotonic() - began, 0.9)
        sensor.send(mqttsn.pingreq(sensor.client_id))
        sensor.await_kind(mqttsn.DISCONNECT)

    def test_each_wake_starts_the_time_anew(self) -> None:
        will, topic = unique("will/"), unique("live/")
        watcher = self.watch(will)
        sensor = self.sleeper(topic, duration=2, will=Will(will))
        for _ in range(4):
            time.sleep(1.2)
            self.assertEqual(sensor.wake(), [])
        self.nothing_more(watcher, will)

    def test_keep_alive_does_not_count_while_asleep(self) -> None:
        will, topic = unique("will/"), unique("slow/")
        watcher = self.watch(will)
        sensor = self.stranger()
        sensor.connect(will=Will(will), duration=1)
        sensor.subscribe(topic, 1)
        sensor.sleep(30)
        time.sleep(2.5)
        self.publish(topic, b"kept")
        self.assertEqual([found.payload for found in sensor.wake()], [b"kept"])
        self.nothing_more(watcher, will)

    def test_disconnect_ends_it_without_will(self) -> None:
        for clean in (True, False):
            with self.subTest(clean=clean):
                will, topic = unique("will/"), unique("end/")
                watcher = self.watch(will)
                sensor = self.sleeper(topic, clean=clean, will=Will(will))
                sensor.leave()
                self.publish(topic, b"after")
                self.nothing_more(watcher, will)
                sensor.connect(clean=False)
                if clean:
                    self.assertEqual(sensor.settle((mqttsn.PUBLISH, mqttsn.REGISTER)), [])
                else:
                    self.assertEqual(sensor.take().payload, b"after")

    def test_a_new_duration(self) -> None:
        will, topic = unique("will/"), unique("new/")
        watcher = self.watch(will)
        sensor = self.sleeper(topic, duration=1, will=Will(will, b"end"))
        sensor.sleep(30)
        time.sleep(2.2)
        self.publish(topic, b"kept")
        self.assertEqual([found.payload for found in sensor.wake()], [b"kept"])
        self.nothing_more(watcher, will)
        sensor.sleep(1)
        self.seen(watcher, b"end")

    def test_disconnect_is_answered_again(self) -> None:
        sensor = self.sleeper(unique("twice/"))
        for _ in range(3):
            sensor.send(mqttsn.disconnect(60))
            sensor.expect(mqttsn.DISCONNECT)
        self.assertEqual(sensor.wake(), [])

    def test_connect_from_sleep(self) -> None:
        for clean in (False, True):
            with self.subTest(clean=clean):
                topic, will = unique("back/"), unique("will/")
                watcher = self.watch(will)
                sensor = self.sleeper(topic, clean=False, will=Will(will))
                self.publish(topic, b"1", b"2")
                sensor.connect(clean=clean)
                if clean:
                    self.assertEqual(sensor.settle((mqttsn.PUBLISH, mqttsn.REGISTER)), [])
                else:
                    self.assertEqual([sensor.take().payload for _ in range(2)], [b"1", b"2"])
                self.publish(topic, b"3")
                if clean:
                    self.assertEqual(sensor.settle((mqttsn.PUBLISH, mqttsn.REGISTER)), [])
                else:
                    self.assertEqual(sensor.take().payload, b"3")
                self.nothing_more(watcher, will)

    def test_connect_with_the_same_octets_is_answered_at_once(self) -> None:
        """Some clients send CONNECT once."""
        message = mqttsn.connect(unique(), clean=False)
        for end in (mqttsn.disconnect(60), mqttsn.disconnect(), mqttsn.disconnect(60)):
            link = self.endpoint()
            for _ in range(3):
                link.send(message)
                link.expect(mqttsn.CONNACK)
                link.send(end)
                link.expect(mqttsn.DISCONNECT)

    def test_the_will_of_a_sleeper_that_comes_back_and_is_lost(self) -> None:
        will = unique("will/")
        watcher = self.watch(will)
        sensor = self.sleeper(unique("t/"), clean=False, will=Will(will, b"lost"))
        sensor.connect(clean=False, duration=1)
        sensor.await_kind(mqttsn.DISCONNECT, seconds=10)
        self.seen(watcher, b"lost")

    def test_messages_out_of_place_while_asleep(self) -> None:
        """A sensor that is asleep has to CONNECT before it does more: the sleep itself must survive the mistake."""
        topic = unique("odd/")
        table = [
            mqttsn.subscribe("other", 1), mqttsn.register("other"), mqttsn.publish("ab", b"x", 1, 1),
            mqttsn.ack(mqttsn.PUBREL, 3), mqttsn.willmsg(b"x"), mqttsn.puback(1, 1),
        ]  # fmt: skip
        for message in table:
            with self.subTest(message=message.hex()):
                sensor = self.sleeper(topic, clean=False)
                sensor.send(message)
                self.publish(topic, b"kept")
                sensor.send(mqttsn.pingreq(sensor.client_id))
                while (found := sensor.receive()).kind not in (mqttsn.PUBLISH, mqttsn.DISCONNECT):
                    pass
                if found.kind == mqttsn.DISCONNECT:
                    # Refused: it connects again, and its session is whole.
                    sensor.connect(clean=False)
                else:
                    sensor.backlog.append(found)
                self.assertEqual(sensor.take().payload, b"kept")
                sensor.leave()


class Addresses(SleepCase):
    def test_a_sleeper_returns_from_a_new_address(self) -> None:
        topic = unique("moved/")
        sensor = self.sleeper(topic)
        self.publish(topic, b"kept")
        moved = self.stranger(str(sensor.client_id))
        moved.names = sensor.names
        self.assertEqual([found.payload for found in moved.wake()], [b"kept"])
        self.publish(topic, b"more")
        self.assertEqual([found.payload for found in moved.wake()], [b"more"])
        moved.connect(clean=False)
        moved.ping()

    def test_an_unknown_sleeper_is_sent_away(self) -> None:
        stranger = self.stranger()
        stranger.send(mqttsn.pingreq(stranger.client_id))
        stranger.expect(mqttsn.DISCONNECT)

    def test_a_connected_sensor_is_not_taken_by_a_ping(self) -> None:
        topic = unique("safe/")
        sensor = self.sensor()
        sensor.subscribe(topic, 1)
        thief = self.stranger(str(sensor.client_id))
        thief.send(mqttsn.pingreq(sensor.client_id))
        found = thief.receive()
        self.assertEqual(found.kind, mqttsn.DISCONNECT)
        self.publish(topic, b"mine")
        self.assertEqual(sensor.take().payload, b"mine")
        sensor.ping()

    def test_an_mqtt_session_is_not_taken_by_a_ping(self) -> None:
        topic, client_id = unique("mqtt/"), unique()
        link = self.client(V5, client_id, clean=False, props=[(wire.SESSION_EXPIRY, 60)])
        link.subscribe((topic, 1))
        thief = self.stranger(client_id)
        thief.send(mqttsn.pingreq(client_id))
        thief.expect(mqttsn.DISCONNECT)
        link.leave()
        self.publish(topic, b"not for thieves")
        thief.send(mqttsn.pingreq(client_id))
        thief.expect(mqttsn.DISCONNECT)
        link = self.client(V5, client_id, clean=False, props=[(wire.SESSION_EXPIRY, 60)])
        self.assertEqual(link.take().payload, b"not for thieves")

    def test_a_session_that_is_away_but_not_asleep_is_not_woken(self) -> None:
        topic = unique("away/")
        sensor = self.sensor(clean=False)
        sensor.subscribe(topic, 1)
        sensor.leave()
        self.publish(topic, b"later")
        for link in (sensor, self.stranger(str(sensor.client_id))):
            link.send(mqttsn.pingreq(sensor.client_id))
            link.expect(mqttsn.DISCONNECT)
        sensor.connect(clean=False)
        self.assertEqual(sensor.take().payload, b"later")

    def test_a_spoofed_disconnect_changes_nothing(self) -> None:
        topic = unique("spoof/")
        sensor = self.sleeper(topic)
        thief = self.stranger(str(sensor.client_id))
        thief.send(mqttsn.disconnect(), mqttsn.disconnect(1))
        thief.expect(mqttsn.DISCONNECT)
        self.publish(topic, b"kept")
        self.assertEqual([found.payload for found in sensor.wake()], [b"kept"])


class OneAddress(SleepCase):
    settings = settings(roaming="never")

    def test_only_the_old_address_wakes(self) -> None:
        topic = unique("stay/")
        sensor = self.sleeper(topic)
        self.publish(topic, b"kept")
        for host in ("127.0.0.1", "127.0.0.9"):
            thief = self.endpoint(host=host)
            thief.send(mqttsn.pingreq(sensor.client_id))
            thief.expect(mqttsn.DISCONNECT)
        self.assertEqual([found.payload for found in sensor.wake()], [b"kept"])


class OneHost(SleepCase):
    settings = settings(roaming="host")

    def test_any_port_of_the_old_host_wakes(self) -> None:
        topic = unique("stay/")
        sensor = self.sleeper(topic)
        self.publish(topic, b"kept")
        thief = self.endpoint(host="127.0.0.9")
        thief.send(mqttsn.pingreq(sensor.client_id))
        thief.expect(mqttsn.DISCONNECT)
        moved = self.stranger(str(sensor.client_id))
        moved.names = sensor.names
        self.assertEqual([found.payload for found in moved.wake()], [b"kept"])


class Awake(SleepCase):
    def test_a_sensor_that_dies_while_awake_loses_nothing(self) -> None:
        topic = unique("dies/")
        sensor = self.sleeper(topic, 1, duration=30)
        self.publish(topic, b"a", b"b")
        sensor.send(mqttsn.pingreq(sensor.client_id))
        sensor.expect(mqttsn.PUBLISH)
        # It is silent until the gateway gives up (N_RETRY), and comes back before its sleep is over.
        count = 0
        while True:
            try:
                found = sensor.receive(RETRY_SECONDS * 3)
            except mqttsn.TimedOut:
                break
            count += found.kind == mqttsn.PUBLISH
            self.assertLess(count, 10)
        got = [found.payload for found in sensor.wake()]
        self.assertEqual(got, [b"a", b"b"])

    def test_going_to_sleep_while_messages_come(self) -> None:
        topic = unique("flow/")
        sensor = self.sensor()
        sensor.subscribe(topic, 1)
        publisher = self.client(V5)
        for number in range(50):
            publisher.publish(topic, b"%d" % number, 1)
            if number % 10 == 5:
                sensor.sleep(60)
                sensor.wake()
                sensor.connect(clean=False)
        got: list[bytes] = []
        while len(set(got)) < 50:
            got.append(sensor.take().payload)
        self.assertEqual(list(dict.fromkeys(got)), [b"%d" % number for number in range(50)])
