#!/usr/bin/env python3
"""No code of a translation unit with its own instruction set may be merged with the same code of another unit.

An inline function or template that such a unit emits is a weak symbol. The linker keeps one copy of it for the whole
program, perhaps the one with AVX-512 in it, and the program then dies on an older processor in code that has nothing
to do with kernels. So weak code is allowed only where its name belongs to the instruction set's namespace.

usage: check_symbols.py [--nm NM] OBJECT...    (objects of other units are passed over; at least one must count)
"""
import argparse
import re
import subprocess
import sys

# The namespaces of src/kernels/cpu, mangled: kvasir::avx2 and so on, anywhere in a name (also as template argument).
OWN = {"avx2": re.compile("6kvasir4avx2"), "avx512": re.compile("6kvasir6avx512"),
       "avx512bf16": re.compile("6kvasir10avx512bf16")}


def isa_of(path):
    found = re.search(r"(avx2|avx512|avx512bf16)\.cc\.o(bj)?$", path)
    return found.group(1) if found else None


def weak_code(listing, isa):
    """Names of weak (W) and unique (u) definitions in `nm` output; V is data, of which copies do no harm."""
    for line in listing.splitlines():
        found = re.fullmatch(r"[0-9a-f]+ ([Wu]) (\S+)", line.strip())
        if found and not OWN[isa].search(found.group(2)):
            yield found.group(2)


def self_test():
    listing = ("0000000000000000 W _ZNSt6vectorIfE3eatEv\n0000000000000010 T _ZN6kvasir4avx24MulEv\n"
               "                 U memcpy\n0000000000000000 V DW.ref.__gxx_personality_v0\n"
               "0000000000000000 W _ZN6kvasir4avx26DotterIiE3RunEv\n0000000000000020 u _ZZN6kvasir1fEvE1x\n")
    assert list(weak_code(listing, "avx2")) == ["_ZNSt6vectorIfE3eatEv", "_ZZN6kvasir1fEvE1x"]
    assert len(list(weak_code(listing, "avx512"))) == 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nm", default="nm")
    parser.add_argument("objects", nargs="+")
    args = parser.parse_args()
    self_test()
    checked = bad = 0
    for path in args.objects:
        isa = isa_of(path)
        if not isa:
            continue
        checked += 1
        listing = subprocess.run([args.nm, "--defined-only", path], check=True, capture_output=True, text=True).stdout
        for name in weak_code(listing, isa):
            bad += 1
            shown = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout.strip() or name
            print(f"{path}: weak symbol outside kvasir::{isa}: {shown}")
    print(f"{checked} objects, {bad} weak symbols")
    return 1 if bad or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
