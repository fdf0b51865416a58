#!/usr/bin/env python3
"""Prints `passed failed skipped` of one ctest run: count_tests.py JUNIT GTEST_XML_FOLDER.

JUNIT is ctest's --output-junit; the folder holds what GoogleTest programs wrote under GTEST_OUTPUT=xml:FOLDER/, so that
their cases are counted one by one. A program that failed beyond its cases (a crash, a leak at exit) counts as one more.
"""
import pathlib
import sys
import xml.etree.ElementTree as ET


def count_cases(path):
    passed = failed = skipped = 0
    for case in ET.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main():
    junit, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    total = [0, 0, 0]
    for test in ET.parse(junit).getroot().iter("testcase"):
        ok = test.get("status") == "run"
        cases = [0, 0, 0]
        try:
            cases = list(count_cases(folder / f"{test.get('name')}.xml"))
        except (OSError, ET.ParseError):
            pass
        if not any(cases):
            cases = [int(ok), int(test.get("status") == "fail"), int(test.get("status") in ("notrun", "disabled"))]
        elif not ok and not cases[1]:
            cases[1] = 1
        total = [a + b for a, b in zip(total, cases)]
    print(*total)


if __name__ == "__main__":
    main()
