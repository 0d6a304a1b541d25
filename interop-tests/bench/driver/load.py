"""Puts load on a broker, and counts what it syncs."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from .brokers import Absent, Broker

LIMIT_SECONDS = 600
_SYNC = re.compile(r"^\d+ +(?P<time>\d+\.\d+) (?:fsync|fdatasync|sync_file_range|msync)\(")


class Failed(Exception):
    """A run of the load came to nothing; the message says how far."""


def words(scenario: str, broker: Broker | None, options: dict[str, object]) -> list[str]:
    """The command that runs a scenario of the load."""
    command = [os.environ["BENCH_LOAD"], scenario]
    if broker is not None:
        command += ["--server", f"127.0.0.1:{broker.port}", "--pid", str(broker.pid)]
    for name, value in options.items():
        command += ["--" + name.replace("_", "-"), str(value).lower() if isinstance(value, bool) else str(value)]
    return command


def _result(process: subprocess.Popen, out: str, error: str) -> dict[str, float]:
    if process.returncode:
        raise Failed(error.strip().removeprefix("durability-bench: ") or f"status {process.returncode}")
    return json.loads(out)


def load(scenario: str, broker: Broker | None = None, **options: object) -> dict[str, float]:
    """Runs one scenario of the load to its end."""
    return begin(scenario, broker, **options).result()


class Load:
    """A scenario of the load that runs beside others."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def result(self) -> dict[str, float]:
        try:
            out, error = self.process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired as expired:
            self.process.kill()
            self.process.communicate()
            raise Failed(f"not done in {LIMIT_SECONDS} s") from expired
        return _result(self.process, out, error)

    def end(self) -> None:
        """Ends it, whatever it has done."""
        self.process.kill()
        self.process.communicate()


def begin(scenario: str, broker: Broker | None = None, **options: object) -> Load:
    return Load(subprocess.Popen(words(scenario, broker, options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


def disk(directory: pathlib.Path, seconds: float = 1.0) -> dict[str, float]:
    """What appends of 4 KiB with fdatasync cost here and now."""
    directory.mkdir(parents=True, exist_ok=True)
    return load("fsync", file=directory / f"fsync-{os.getpid()}", seconds=seconds)


def strace(log: pathlib.Path, inject: str | None = None) -> list[str]:
    """Words in front of a command that log its syncs, or delay them. Other system calls are not touched."""
    if shutil.which("strace") is None:
        raise Absent("strace is not installed")
    words = ["strace", "-f", "--seccomp-bpf", "-qq", "-ttt", "-o", str(log)]
    words += ["-e", "trace=fsync,fdatasync,sync_file_range,msync"]
    if inject:
        words += ["-e", f"inject=fsync,fdatasync:{inject}"]
    return words


class Syncs:
    """Counts the syncs in the log of strace from its making to `count`."""

    def __init__(self, log: pathlib.Path) -> None:
        self.log = log
        self.began = time.time()

    def count(self) -> int:
        ended = time.time()
        found = 0
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            match = _SYNC.match(line)
            if match and self.began <= float(match["time"]) <= ended:
                found += 1
        return found


def store_stats(broker: Broker) -> dict[str, int]:
    """What Tidegate's store counts; nothing for other brokers."""
    if broker.kind != "tidegate":
        return {}
    words = [os.environ["BROKER_BIN"], "store", "stats", "--set", f"node.data_dir={broker.directory}/data"]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    pairs = (line.split() for line in out.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
