#!/usr/bin/env bash
# The C++ tests of the CPU kernels: under the address and undefined-behaviour sanitizers on this machine, at every ISA
# level that it runs; then the library built for aarch64, with the same tests under an emulator.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build/native}

# Builds the library and the tests: folder, compiler, flags of both, then options for CMake.
build() {
  local folder=$1 compiler=$2 flags=$3
  shift 3
  cmake -S . -B "$folder" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_FLAGS="$flags" "$@" >"$folder.log" 2>&1 ||
    { cat "$folder.log"; return 1; }
  cmake --build "$folder" --parallel "${JOBS:-2}" >>"$folder.log" 2>&1 || { cat "$folder.log"; return 1; }
  for test in tests/native/test_*.cpp; do
    # shellcheck disable=SC2086
    "$compiler" -std=c++17 -O1 -Wall -Wextra $flags -I cobra/kernels/cpu/csrc "$test" -o "$folder/$(basename "$test" .cpp)" \
      -L "$folder" -lcobra_cpu "-Wl,-rpath,\$ORIGIN"
  done
}

# Runs every test of a folder behind the words that follow.
run() {
  local folder=$1
  shift
  for test in tests/native/test_*.cpp; do
    "$@" "$folder/$(basename "$test" .cpp)"
  done
}

mkdir -p "$build"
echo "== sanitizers"
# no vptr: the library has no run-time type information
build "$build/sanitized" "${CXX:-c++}" \
  "-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all"
run "$build/sanitized" env ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1

echo "== aarch64"
for needed in aarch64-linux-gnu-g++:g++-aarch64-linux-gnu qemu-aarch64-static:qemu-user-static; do
  if ! command -v "${needed%%:*}" >/dev/null; then
    echo "skipped: there is no ${needed%%:*}; on Debian, apt-get install ${needed##*:}"
    exit 0
  fi
done
build "$build/aarch64" aarch64-linux-gnu-g++ "" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64
run "$build/aarch64" qemu-aarch64-static -L /usr/aarch64-linux-gnu
