"""The scenarios. Each runs some rounds, brokers interleaved, and gives back Markdown."""

from __future__ import annotations

import signal
from collections.abc import Callable

from .bench import Bench, backlog, subscribe
from .brokers import Broker, Cage
from .load import Syncs, disk, load, store_stats, strace
from .sensors import sensors
from .stall import stall
from .tables import median, number, ratio, table

MIB = 1 << 20
# Brokers that are compared where the load is heavy.
COMPARED = ["tidegate", "mosquitto", "rabbitmq", "nats", "nats-sync", "rumqttd"]


def _best(found: dict[str, list[dict[str, float]]], name: str) -> float | None:
    """The lowest median of the other brokers."""
    others = [median(runs, name) for kind, runs in found.items() if kind != "tidegate"]
    values = [value for value in others if value]
    return min(values) if values else None


def _ratio(kind: str, value: float | None, best: float | None) -> str:
    return ratio(value, best) if kind == "tidegate" else ""


def durable_in(bench: Bench) -> str:
    """QoS 1 in, for subscribers that are away."""
    rows = []
    for size, sessions in [(64, 0), (64, 1), (64, 10), (64, 1000), (1024, 1), (1024, 1000)]:
        case = f"{size} B, {sessions}"

        def run(kind: str, size: int = size, sessions: int = sessions) -> dict[str, float]:
            with bench.broker(kind) as broker:
                subscribe(broker, sessions)
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
            subscribe(broker, 1)
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
            subscribe(broker, 1)
            syncs = Syncs(trace)
            alone = load("publish", broker, window=1, count=300)
            figures = {"syncs_alone": syncs.count() / alone["messages"]}
            syncs = Syncs(trace)
            many = load("publish", broker, window=50, publishers=20, count=1 << 40, seconds=min(2.0, bench.seconds))
            return figures | {"syncs_many": syncs.count() / many["messages"]}

    def delayed(kind: str) -> dict[str, float]:
        with bench.broker(kind, start=False) as broker:
            broker.start(around=strace(broker.directory / "strace.txt", "delay_exit=50000"))
            subscribe(broker, 1)
            return load("publish", broker, window=1, rate=4, count=1 << 40, seconds=3)

    def killed(kind: str) -> dict[str, float]:
        with bench.broker(kind) as broker:
            subscribe(broker, 1)
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


def drain(bench: Bench) -> str:
    """A backlog is taken: by one session, and by a thousand."""
    rows = []
    for sessions in (1, 1000):

        def run(kind: str, sessions: int = sessions) -> dict[str, float]:
            with bench.broker(kind) as broker:
                waiting = backlog(bench, broker, sessions, 1)
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
                waiting = backlog(bench, broker, 1, 2, size=512)
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


SCENARIOS: dict[str, Callable[[Bench], str]] = {
    "in": durable_in,
    "ack": acknowledgement,
    "live": live,
    "drain": drain,
    "memory": memory,
    "start": start,
    "stall": stall,
    "sensors": sensors,
}
