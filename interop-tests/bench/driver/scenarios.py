"""The scenarios. Each runs some rounds, brokers interleaved, and gives back Markdown."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .brokers import Absent, Broker, Cage
from .load import Failed, Load, Syncs, begin, disk, load, log, store_stats, strace
from .tables import median, number, ratio, table

MIB = 1 << 20
# A run that takes longer is the only one of its broker.
SLOW_SECONDS = 90
# Brokers that are compared where the load is heavy.
COMPARED = ["tidegate", "mosquitto", "rabbitmq", "nats", "nats-sync", "rumqttd"]


@dataclass
class Bench:
    """What is run, how often, and how large."""

    directory: pathlib.Path
    kinds: list[str]
    runs: int
    # Seconds of a phase of load.
    seconds: float
    # 1 for a million of what there are a million of.
    scale: float
    record: Callable[[str, str, str, dict[str, float]], None]
    reasons: dict[str, str] = field(default_factory=dict)
    made: int = 0

    @contextlib.contextmanager
    def broker(self, kind: str, start: bool = True, **options: object) -> Iterator[Broker]:
        """A broker with an empty directory, which is removed in the end."""
        self.made += 1
        broker = Broker(kind, self.directory / f"{kind}-{self.made}", _free_port())
        try:
            if start:
                broker.start(**options)
            yield broker
        finally:
            broker.remove()

    def rounds(self, scenario: str, case: str, run: Callable[[str], dict[str, float]], kinds: list[str] | None = None) -> dict:
        """Every broker `runs` times, one after the other. What fails is left out, and the reason kept;
        what is slow is not repeated."""
        found: dict[str, list[dict[str, float]]] = {}
        slow = set()
        for turn in range(self.runs):
            for kind in self.kinds if kinds is None else kinds:
                if f"{scenario} {case} {kind}" in self.reasons or kind in self.reasons:
                    continue
                if kind in slow:
                    continue
                began = time.monotonic()
                try:
                    figures = run(kind)
                except (Absent, Failed) as error:
                    self.reasons[f"{scenario} {case} {kind}"] = str(error)
                    log(f"{scenario} {case} {kind}: {error}")
                    continue
                if time.monotonic() - began > SLOW_SECONDS:
                    slow.add(kind)
                self.record(scenario, case, kind, figures)
                brief = {name: round(value, 2) for name, value in figures.items() if "_per_" in name or name == "lost"}
                log(f"{scenario} {case} {kind} {turn + 1}: {brief}")
                found.setdefault(kind, []).append(figures)
        return found

    def number_of(self, millions: float) -> int:
        return max(1000, int(millions * self.scale * 1_000_000))

    def have(self, kinds: list[str]) -> list[str]:
        return [kind for kind in kinds if kind in self.kinds]


def _free_port() -> int:
    """A port below those that the system gives to clients, with some free above it."""
    for port in range(23_800, 30_000, 20):
        with contextlib.suppress(OSError):
            for near in range(4):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port + near))
            return port
    raise Absent("no free port")


def _best(found: dict[str, list[dict[str, float]]], name: str) -> float | None:
    """The lowest median of the other brokers."""
    others = [median(runs, name) for kind, runs in found.items() if kind != "tidegate"]
    values = [value for value in others if value]
    return min(values) if values else None


def _ratio(kind: str, value: float | None, best: float | None) -> str:
    return ratio(value, best) if kind == "tidegate" else ""


def _subscribers(broker: Broker, sessions: int, filter_: str = "dur/#") -> None:
    if sessions:
        load("create", broker, sessions=sessions, filter=filter_)


def durable_in(bench: Bench) -> str:
    """QoS 1 in, for subscribers that are away."""
    rows = []
    for size, sessions in [(64, 0), (64, 1), (64, 10), (64, 1000), (1024, 1), (1024, 1000)]:
        case = f"{size} B, {sessions}"

        def run(kind: str, size: int = size, sessions: int = sessions) -> dict[str, float]:
            with bench.broker(kind) as broker:
                _subscribers(broker, sessions)
                before = store_stats(broker)
                options = {"publishers": 20, "window": 50, "size": size, "count": 1 << 40, "seconds": bench.seconds}
                figures = load("publish", broker, **options)
                after = store_stats(broker)
                if after:
                    figures["fsyncs_per_message"] = (after["fsyncs"] - before["fsyncs"]) / figures["messages"]
                return figures

        found = bench.rounds("in", case, run, bench.have(COMPARED))
        best = _best(found, "cpu_us_per_message")
        for kind, runs in found.items():
            of = lambda name, runs=runs: number(median(runs, name))  # noqa: E731
            cpu = median(runs, "cpu_us_per_message")
            rows.append(
                [f"{size} B", str(sessions), kind, of("messages_per_s"), of("cpu_us_per_message"), _ratio(kind, cpu, best)]
                + [of("disk_bytes_per_message"), of("rss_bytes_per_message"), of("fsyncs_per_message"), of("ack_p50_us")]
                + [of("ack_p99_us")]
            )
    head = ["payload", "subscribers", "broker", "msg/s", "CPU µs/msg", "to best other", "disk B/msg", "RSS B/msg"]
    return table(head + ["fsyncs/msg", "PUBACK p50 µs", "p99 µs"], rows)


def acknowledgement(bench: Bench) -> str:
    """One publisher, one message at a time, 1000 per second; and whether PUBACK waits for the disk."""

    def paced(kind: str) -> dict[str, float]:
        with bench.broker(kind) as broker:
            _subscribers(broker, 1)
            raw = disk(bench.directory)
            options = {"window": 1, "rate": 1000, "count": 1 << 40, "seconds": bench.seconds}
            figures = load("publish", broker, **options)
            again = disk(bench.directory)
            for name in ("fdatasync_p50_us", "fdatasync_p99_us"):
                figures[name] = (raw[name] + again[name]) / 2
            return figures

    def synced(kind: str) -> dict[str, float]:
        with bench.broker(kind, start=False) as broker:
            trace = broker.directory / "strace.txt"
            broker.start(around=strace(trace))
            _subscribers(broker, 1)
            syncs = Syncs(trace)
            alone = load("publish", broker, window=1, count=300)
            figures = {"syncs_alone": syncs.count() / alone["messages"]}
            syncs = Syncs(trace)
            many = load("publish", broker, window=50, publishers=20, count=1 << 40, seconds=min(2.0, bench.seconds))
            return figures | {"syncs_many": syncs.count() / many["messages"]}

    def delayed(kind: str) -> dict[str, float]:
        with bench.broker(kind, start=False) as broker:
            broker.start(around=strace(broker.directory / "strace.txt", "delay_exit=50000"))
            _subscribers(broker, 1)
            return load("publish", broker, window=1, rate=4, count=1 << 40, seconds=3)

    def killed(kind: str) -> dict[str, float]:
        with bench.broker(kind) as broker:
            _subscribers(broker, 1)
            sent = load("publish", broker, publishers=10, count=bench.number_of(0.01))["messages"]
            broker.stop(signal.SIGKILL)
            broker.start()
            came = load("drain", broker, expect=int(sent), patience_seconds=3)
            return {"came_back_percent": 100 * came["messages"] / sent}

    pace, sync = bench.rounds("ack", "paced", paced), bench.rounds("ack", "syncs", synced)
    slow, kill = bench.rounds("ack", "slow", delayed), bench.rounds("ack", "killed", killed)
    rows = []
    for kind in bench.kinds:
        of = lambda found, name, kind=kind: number(median(found.get(kind, []), name))  # noqa: E731
        rows.append(
            [kind, of(pace, "ack_p50_us"), of(pace, "ack_p99_us"), of(pace, "fdatasync_p50_us")]
            + [of(pace, "fdatasync_p99_us"), of(sync, "syncs_alone"), of(sync, "syncs_many")]
            + [of(slow, "ack_p50_us"), of(kill, "came_back_percent")]
        )
    head = ["broker", "PUBACK p50 µs", "p99 µs", "raw fdatasync p50 µs", "p99 µs", "fsyncs/msg, one at a time"]
    return table(head + ["1000 under way", "PUBACK p50 µs if fsync takes 50 ms more", "% back after SIGKILL"], rows)


def live(bench: Bench) -> str:
    """Persistent subscribers that are there."""
    rows = []
    for qos, subscribers in [(1, 1), (1, 10), (1, 1000), (2, 1), (2, 10)]:

        def run(kind: str, qos: int = qos, subscribers: int = subscribers) -> dict[str, float]:
            with bench.broker(kind) as broker:
                options = {"qos": qos, "sub_qos": qos, "subscribers": subscribers, "publishers": 20, "count": 1 << 40}
                window = 50 if subscribers < 1000 else 2
                return load("live", broker, window=window, seconds=bench.seconds, **options)

        found = bench.rounds("live", f"QoS {qos}, {subscribers}", run, bench.have(COMPARED))
        best = _best(found, "cpu_us_per_message")
        for kind, runs in found.items():
            of = lambda name, runs=runs: number(median(runs, name))  # noqa: E731
            rows.append(
                [str(qos), str(subscribers), kind, of("messages_per_s"), of("cpu_us_per_message")]
                + [_ratio(kind, median(runs, "cpu_us_per_message"), best), of("end_to_end_p50_us"), of("end_to_end_p99_us")]
                + [of("lost"), of("backwards")]
            )
    head = ["QoS", "subscribers", "broker", "deliveries/s", "CPU µs/delivery", "to best other", "end to end p50 µs"]
    return table(head + ["p99 µs", "lost", "out of order"], rows)


def _backlog(bench: Bench, broker: Broker, sessions: int, millions: float, size: int = 64) -> int:
    """Publishes what is to be drained; slow brokers get less. Returns the number of messages."""
    each_topic = sessions > 1
    _subscribers(broker, sessions, "many/{s}" if each_topic else "many/#")
    count = bench.number_of(millions)
    options = {"topic": "many/{n}", "topics": 1000, "publishers": 20, "size": size, "count": count}
    return int(load("publish", broker, seconds=max(20 * bench.seconds, 20), **options)["messages"])


def drain(bench: Bench) -> str:
    """A backlog is taken: by one session, and by a thousand."""
    rows = []
    for sessions in (1, 1000):

        def run(kind: str, sessions: int = sessions) -> dict[str, float]:
            with bench.broker(kind) as broker:
                waiting = _backlog(bench, broker, sessions, 1)
                figures = load("drain", broker, sessions=sessions, expect=waiting)
                figures["rss_per_waiting"] = figures["rss_before_mb"] * 1e6 / waiting
                return figures

        found = bench.rounds("drain", str(sessions), run, bench.have(COMPARED))
        best = _best(found, "cpu_us_per_message")
        for kind, runs in found.items():
            of = lambda name, runs=runs: number(median(runs, name))  # noqa: E731
            rows.append(
                [str(sessions), kind, of("messages"), of("messages_per_s"), of("cpu_us_per_message")]
                + [_ratio(kind, median(runs, "cpu_us_per_message"), best), of("first_message_ms"), of("rss_before_mb")]
                + [of("rss_peak_mb"), of("lost"), of("surplus"), of("backwards")]
            )
    head = ["sessions", "broker", "messages", "msg/s", "CPU µs/msg", "to best other", "first after ms", "RSS before MB"]
    return table(head + ["RSS peak MB", "lost", "doubled", "out of order"], rows)


def memory(bench: Bench) -> str:
    """A backlog of several times the memory that the process may have, page cache included."""
    limit = int(max(64, 256 * bench.scale)) * MIB

    def run(kind: str) -> dict[str, float]:
        cage = Cage(limit)
        try:
            with bench.broker(kind, cage=cage) as broker:
                waiting = _backlog(bench, broker, 1, 2, size=512)
                figures = load("drain", broker, expect=waiting)
                return figures | {"backlog_mb": waiting * 512 / 1e6, "limit_mb": limit / 1e6}
        finally:
            cage.remove()

    found = bench.rounds("memory", "512 B", run, bench.have(["tidegate", "mosquitto"]))
    rows = []
    for kind, runs in found.items():
        of = lambda name, runs=runs: number(median(runs, name))  # noqa: E731
        rows.append([kind] + [of(name) for name in ("limit_mb", "backlog_mb", "messages_per_s", "rss_peak_mb", "lost")])
    return table(["broker", "limit MB", "backlog MB (payload)", "msg/s out", "RSS peak MB", "lost"], rows)


def _fill(bench: Bench, broker: Broker, what: str) -> dict[str, float]:
    many = {"publishers": 20, "topics": 1 << 40}
    if what == "sessions":
        millions = {"tidegate": 1, "mosquitto": 0.1}.get(broker.kind, 0.01)
        return load("create", broker, sessions=bench.number_of(millions), filter="dev/{s}/cmd", under_way=1000)
    if what == "retained":
        return load("publish", broker, topic="kept/{n}", retain=True, count=bench.number_of(0.1), **many)
    return load("publish", broker, topic="$delayed/3600/later/{n}", count=bench.number_of(0.1), **many)


def start(bench: Bench) -> str:
    """Much is kept, the process ends, and starts again."""
    rows = []
    for what, kinds in [("sessions", COMPARED), ("retained", COMPARED), ("delayed", ["tidegate"])]:

        def run(kind: str, what: str = what) -> dict[str, float]:
            with bench.broker(kind) as broker:
                empty = broker.start_seconds
                filled = _fill(bench, broker, what)
                one = "session" if what == "sessions" else "message"
                # mosquitto writes its database only when it is asked to end.
                broker.stop(signal.SIGTERM if kind.startswith("mosquitto") else signal.SIGKILL)
                bytes_ = broker.disk_bytes()
                broker.start()
                rss = load("create", broker, sessions=1, prefix="look")["rss_mb"]
                count = filled[f"{one}s"]
                return {
                    "count": count,
                    "per_s": filled[f"{one}s_per_s"],
                    "cpu_us": filled[f"cpu_us_per_{one}"],
                    "rss_each": filled[f"rss_bytes_per_{one}"],
                    "start_seconds": broker.start_seconds,
                    "empty_start_seconds": empty,
                    "rss_mb": rss,
                    "rss_each_restored": (rss - filled["rss_before_mb"]) * 1e6 / count,
                    "disk_each": bytes_ / count,
                }

        found = bench.rounds("start", what, run, bench.have(kinds))
        for kind, runs in found.items():
            of = lambda name, runs=runs: number(median(runs, name))  # noqa: E731
            names = ("count", "per_s", "cpu_us", "rss_each", "disk_each", "start_seconds", "empty_start_seconds")
            rows.append([what, kind] + [of(name) for name in (*names, "rss_mb", "rss_each_restored")])
    head = ["kept", "broker", "number", "made/s", "CPU µs each", "RSS B each", "disk B each", "start s", "empty start s"]
    return table(head + ["RSS after MB", "RSS B each, after"], rows)


def _bystander(bench: Bench, broker: Broker) -> Load:
    """QoS 0, 1000 messages per second, one publisher and one subscriber."""
    options = {"qos": 0, "sub_qos": 0, "rate": 1000, "clean": True, "topic": "by", "filter": "by", "prefix": "bystander"}
    return begin("live", broker, count=1 << 40, seconds=bench.seconds, **options)


def _nothing(_: Bench, __: Broker) -> Callable[[], object]:
    return lambda: None


def _flood(bench: Bench, broker: Broker) -> Callable[[], object]:
    options = {"qos": 0, "sub_qos": 0, "clean": True, "topic": "flood", "filter": "flood", "count": 1 << 40}
    other = begin("live", broker, seconds=bench.seconds + 2, prefix="flood", patience_seconds=2, **options)
    return lambda: other.result


def _durable(bench: Bench, broker: Broker) -> Callable[[], object]:
    other = begin("publish", broker, publishers=20, topic="many/{n}", count=1 << 40, seconds=bench.seconds + 2)
    return other.result


def _draining(bench: Bench, broker: Broker) -> Callable[[], object]:
    waiting = _backlog(bench, broker, 1, 1)
    return lambda: load("drain", broker, expect=waiting)


def _takeover(bench: Bench, broker: Broker) -> Callable[[], object]:
    options = {"filter": "wide/{s}/{n}", "each": bench.number_of(0.1)}
    load("create", broker, prefix="wide", sessions=1, **options)
    return lambda: load("create", broker, prefix="wide", sessions=1, clean=True, each=0)


def _wide_expires(bench: Bench, broker: Broker) -> Callable[[], object]:
    options = {"filter": "wide/{s}/{n}", "each": bench.number_of(0.1), "v5": True, "expiry": 1}
    return lambda: load("create", broker, prefix="wide", sessions=1, **options)


def _all_expire(bench: Bench, broker: Broker) -> Callable[[], object]:
    sessions = bench.number_of(1)
    # The process stands still until the last one is due, so that all are due at once.
    expiry = int(10 + sessions / 4000)
    began = time.monotonic()
    load("create", broker, sessions=sessions, filter="dev/{s}/cmd", v5=True, expiry=expiry, under_way=1000)
    ended = time.monotonic()
    if ended - began > expiry:
        raise Failed(f"{sessions} sessions took {ended - began:.0f} s to make, and expire after {expiry} s")
    os.kill(broker.pid, signal.SIGSTOP)
    time.sleep(expiry + 1)
    os.kill(broker.pid, signal.SIGCONT)
    return lambda: None


STALLS: list[tuple[str, Callable[[Bench, Broker], Callable[[], object]], str | None]] = [
    ("nothing else", _nothing, None),
    ("QoS 0 as fast as it goes", _flood, None),
    ("durable QoS 1 as fast as it goes", _durable, None),
    ("the same, every fsync takes 0.2 s more", _durable, "delay_exit=200000"),
    ("a backlog of 1 M is drained", _draining, None),
    ("a session of 100 k subscriptions is replaced", _takeover, None),
    ("a session of 100 k subscriptions is made, and expires", _wide_expires, None),
    ("1 M sessions expire at once", _all_expire, None),
]


def stall(bench: Bench) -> str:
    """A bystander's QoS 0 while something large goes on."""
    rows = []
    for name, prepare, inject in STALLS:

        def run(kind: str, prepare: Callable = prepare, inject: str | None = inject) -> dict[str, float]:
            with bench.broker(kind, start=False) as broker:
                broker.start(around=strace(broker.directory / "strace.txt", inject) if inject else None)
                act = prepare(bench, broker)
                bystander = _bystander(bench, broker)
                act()
                return bystander.result()

        kinds = bench.have(["tidegate"] if prepare in (_all_expire, _wide_expires) else ["tidegate", "mosquitto"])
        for kind, runs in bench.rounds("stall", name, run, kinds).items():
            figures = [number(median(runs, f"end_to_end_{part}_us")) for part in ("p50", "p99", "p999", "max")]
            rows.append([name, kind, *figures, number(median(runs, "setup_ms")), number(median(runs, "lost"))])
    return table(["meanwhile", "broker", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "to connect ms", "lost"], rows)


SCENARIOS: dict[str, Callable[[Bench], str]] = {
    "in": durable_in,
    "ack": acknowledgement,
    "live": live,
    "drain": drain,
    "memory": memory,
    "start": start,
    "stall": stall,
}
