#!/usr/bin/env python3
"""Runs one module of these tests, or of those of another folder of tests/: run.py MODULE [FOLDER].

When GTEST_OUTPUT=xml:RESULTS/ is set, as for GoogleTest programs, the cases are also written to
RESULTS/FOLDER_MODULE.xml, so that every one of them is counted.
"""

import os
import sys
import time
import unittest
import xml.etree.ElementTree as ET


class Result(unittest.TextTestResult):
    """Remembers the outcome of every case."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.cases = {}

    def startTest(self, test):
        super().startTest(test)
        self.cases[test.id()] = ["passed", time.monotonic(), 0.0]

    def stopTest(self, test):
        super().stopTest(test)
        self.cases[test.id()][2] = time.monotonic() - self.cases[test.id()][1]

    def addError(self, test, err):
        super().addError(test, err)
        self.cases.setdefault(test.id(), ["", time.monotonic(), 0.0])[0] = "failed"

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.cases[test.id()][0] = "failed"

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.cases[test.id()][0] = "failed"

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.cases[test.id()][0] = "skipped"


def write_xml(path, cases):
    suite = ET.Element("testsuite", name=os.path.basename(path)[:-4], tests=str(len(cases)))
    for name, (outcome, _, seconds) in cases.items():
        case = ET.SubElement(suite, "testcase", name=name, status="run", time=f"{seconds:.3f}")
        if outcome != "passed":
            ET.SubElement(case, "failure" if outcome == "failed" else "skipped")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.ElementTree(root).write(path)


def main():
    module = sys.argv[1]
    here = os.path.dirname(os.path.abspath(__file__))
    given = sys.argv[2] if len(sys.argv) > 2 else here
    folder = os.path.abspath(given) if os.path.isabs(given) else os.path.join(os.path.dirname(here), given)
    sys.path[:0] = [folder, here]
    suite = unittest.defaultTestLoader.loadTestsFromName(f"test_{module}")
    result = unittest.TextTestRunner(verbosity=2, resultclass=Result).run(suite)
    output = os.environ.get("GTEST_OUTPUT", "")
    if output.startswith("xml:") and output.endswith("/"):
        os.makedirs(output[4:], exist_ok=True)
        write_xml(os.path.join(output[4:], f"{os.path.basename(folder)}_{module}.xml"), result.cases)
    return 0 if result.wasSuccessful() and result.testsRun > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
