#!/usr/bin/env bash
# Fails where two object files define the same function: the linker keeps one of them, which might be the copy for
# another machine.
# shared_code.sh NM OBJECTS...
set -euo pipefail
nm=$1
shift
for object in "$@"; do
  "$nm" -C --defined-only "$object" | awk '$2 ~ /^[WVu]$/' | cut -d' ' -f3- | sort -u
done | sort | uniq -d | (! grep .)
