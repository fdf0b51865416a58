#!/usr/bin/env bash
# run_on.sh CPU PROGRAM MODEL: starts kvasir on an emulated processor and has it write a few tokens.
# Exit code 77 (skipped in ctest) where the emulator is not installed.
set -euo pipefail

cpu=$1 program=$2 model=$3
if ! command -v qemu-x86_64 >/dev/null; then
  echo "skipped: qemu-x86_64 is not installed (Debian: qemu-user)"
  exit 77
fi

emulate() { qemu-x86_64 -cpu "$cpu" "$program" "$@" 2> >(grep -v "TCG doesn't support requested feature" >&2); }

emulate --version
if [[ ! -f $model/config.json ]]; then
  echo "skipped: no demonstration model in $model"
  exit 77
fi
text=$(emulate generate -m "$model" -p "Once upon a time" -n 4 --temp 0 -t 1)
echo "on $cpu: $text"
[[ -n $text ]] || { echo "nothing was written"; exit 1; }
