# Names for the usual jobs; the work is in scripts/ and CMake.
.PHONY: demo test quick bench format

demo:
	scripts/demo

test:
	scripts/test

quick:
	scripts/test --quick

bench:
	cmake --preset release
	cmake --build --preset release --target kvasir
	build/release/kvasir bench

format:
	find src include tests bench -name fixtures -prune -o \( -name '*.cc' -o -name '*.h' \) -print 2>/dev/null | xargs clang-format-19 -i
