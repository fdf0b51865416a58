# Shared by scripts/demo and scripts/test; sourced, not run.
# shellcheck shell=bash disable=SC2034  # the lists are used by the scripts that source this

# What the build needs, as packages of Debian 12.
build_packages=(g++ cmake ninja-build ccache pkg-config libboost1.81-dev libboost-json1.81-dev libcli11-dev libfmt-dev
  libspdlog-dev libpcre2-dev libutf8proc-dev libxxhash-dev libssl-dev prometheus-cpp-dev
  libjs-marked node-dompurify node-highlight.js)
# What the tests need besides.
test_packages=(libgtest-dev libgmock-dev clang-19 libclang-rt-19-dev clang-format-19 clang-tidy-19 qemu-user python3
  python3-numpy binutils chromium chromium-driver python3-selenium prometheus
  python3-venv curl openssl)
# What the kernels' tests for 64-bit Arm need besides.
arm_packages=(g++-aarch64-linux-gnu qemu-user)

say() { printf '\n=== %s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# install_missing PACKAGE...: installs what dpkg does not know as installed; asks apt for nothing else.
install_missing() {
  if ! command -v dpkg-query >/dev/null; then
    printf 'note: this is not a Debian system; the equivalents of these packages must be there:\n  %s\n' "$*" >&2
    return 0
  fi
  local package missing=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || fail "apt-get is not there to install: ${missing[*]}"
  local as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "run this as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null ||
    printf 'note: apt-get update failed; trying with the package lists at hand\n' >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends \
    "${missing[@]}" </dev/null >&2 || fail "apt-get could not install: ${missing[*]}"
}

# Compile jobs: the processors this process may use (affinity and cgroup quota), one per GB of memory at most.
job_count() {
  local jobs quota period memory
  jobs=$(nproc)
  if [[ -r /sys/fs/cgroup/cpu.max ]]; then
    read -r quota period </sys/fs/cgroup/cpu.max
    [[ $quota == max ]] || ((jobs <= (quota + period - 1) / period)) || jobs=$(((quota + period - 1) / period))
  fi
  memory=$(awk '/^MemAvailable:/ {print int($2 / 1000000)}' /proc/meminfo)
  if [[ -r /sys/fs/cgroup/memory.max ]]; then
    read -r quota </sys/fs/cgroup/memory.max
    [[ $quota == max ]] || ((memory <= quota / 1000000000)) || memory=$((quota / 1000000000))
  fi
  ((jobs <= memory)) || jobs=$memory
  ((jobs >= 1)) || jobs=1
  echo "$jobs"
}
