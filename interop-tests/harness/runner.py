"""Runs unittest suites and writes one line per test: status, suite, test, reason, separated by tabs.

python -m harness.runner --suite raw --directory interop-tests/raw --results FILE [--match TEXT]
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
import traceback
import unittest


class Recorder(unittest.TestResult):
    """Prints progress and keeps one outcome per test; a failed sub-test fails its test."""

    def __init__(self, suite: str, results: pathlib.Path) -> None:
        super().__init__()
        self.suite, self.results = suite, results
        self.started, self.outcome, self.reason = 0.0, "PASS", ""
        self.failed = 0

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.started, self.outcome, self.reason = time.monotonic(), "PASS", ""

    def _failed(self, test: unittest.TestCase, error: object) -> None:
        self.outcome = "FAIL"
        text = "".join(traceback.format_exception(*error))  # type: ignore[misc]
        print(f"--- {test}\n{text}", file=sys.stderr, flush=True)
        last = text.strip().splitlines()[-1]
        self.reason = self.reason or (f"{test}: {last}" if "(" in str(test) and "[" in str(test) else last)

    def addFailure(self, test: unittest.TestCase, err: object) -> None:
        self._outside(test, err)

    def addError(self, test: unittest.TestCase, err: object) -> None:
        self._outside(test, err)

    def _outside(self, test: unittest.TestCase, err: object) -> None:
        self._failed(test, err)
        if not isinstance(test, unittest.TestCase):
            # setUpClass or a module that does not load: no startTest, no stopTest.
            self.record(str(test))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: object) -> None:
        if err is not None:
            self._failed(subtest, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.outcome, self.reason = "SKIP", reason
        if not isinstance(test, unittest.TestCase) or test._testMethodName == "runTest":
            self.record(str(test))

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        name = test.id().removeprefix("unittest.loader.")
        self.record(name)

    def record(self, name: str) -> None:
        reason = " ".join(self.reason.split())[:300]
        seconds = time.monotonic() - self.started if self.started else 0.0
        print(f"{self.outcome:4} {self.suite}: {name} ({seconds:.1f} s){' - ' + reason if reason else ''}", flush=True)
        with self.results.open("a", encoding="utf-8") as out:
            out.write(f"{self.outcome}\t{self.suite}\t{name}\t{reason}\n")
        self.failed += self.outcome == "FAIL"
        self.outcome, self.reason = "PASS", ""


def select(tests: unittest.TestSuite, match: str | None) -> unittest.TestSuite:
    """The tests whose name contains `match`."""
    if match is None:
        return tests
    kept = unittest.TestSuite()
    for item in tests:
        if isinstance(item, unittest.TestSuite):
            kept.addTest(select(item, match))
        elif match in item.id():
            kept.addTest(item)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", required=True)
    parser.add_argument("--directory", required=True, type=pathlib.Path)
    parser.add_argument("--results", required=True, type=pathlib.Path)
    parser.add_argument("--match")
    options = parser.parse_args()
    loader = unittest.TestLoader()
    tests = loader.discover(str(options.directory), "test_*.py", str(options.directory))
    recorder = Recorder(options.suite, options.results)
    select(tests, options.match).run(recorder)
    return 1 if recorder.failed else 0


if __name__ == "__main__":
    sys.exit(main())
