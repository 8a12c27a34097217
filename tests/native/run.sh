#!/usr/bin/env bash
# The C++ tests of the CPU kernels: under the address and undefined-behaviour sanitizers on this machine, at every ISA
# level that it runs; then the library built for aarch64, with the same tests under an emulator.
# `run.sh avx2` runs the sanitizers at that level alone, in less than a minute.
set -euo pipefail
cd "$(dirname "$0")/../.."
level=${1:-} build=${BUILD:-build/native${1:+-$1}} jobs=${JOBS:-$(nproc)}
[[ -z $level ]] || export COBRA_ISA=$level

# Builds the library and its tests in a folder, with further options for CMake, and runs them.
build_and_test() {
  local folder=$build/$1
  shift
  cmake -S . -B "$folder" -DCOBRA_NATIVE_TESTS=ON "$@"
  cmake --build "$folder" --parallel "$jobs"
  ctest --test-dir "$folder" --parallel "$jobs" --output-on-failure
}

echo "== sanitizers"
# -O1: the optimiser would take minutes over the checks. No vptr: the library has no run-time type information.
# Fresh memory is filled with NaN, all bits set: nothing may be read that was not written.
ASAN_OPTIONS=detect_leaks=1:max_malloc_fill_size=1073741824:malloc_fill_byte=255 UBSAN_OPTIONS=print_stacktrace=1 build_and_test sanitized -DCMAKE_BUILD_TYPE=Debug -DCOBRA_ONLY_LEVEL="$level" \
  -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize=vptr \
-fno-sanitize-recover=all"
[[ -z $level ]] || exit 0

echo "== aarch64"
for needed in aarch64-linux-gnu-g++:g++-aarch64-linux-gnu qemu-aarch64-static:qemu-user-static; do
  if ! command -v "${needed%%:*}" >/dev/null; then
    echo "skipped: there is no ${needed%%:*}; on Debian, apt-get install ${needed##*:}"
    exit 0
  fi
done
build_and_test aarch64 -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64-static;-L;/usr/aarch64-linux-gnu"
# a machine without dot products must use plain NEON
QEMU_CPU=cortex-a72 ctest --test-dir "$build/aarch64" --output-on-failure --tests-regex 'interface|linears'
