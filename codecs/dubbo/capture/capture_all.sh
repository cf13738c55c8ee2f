#!/bin/sh
# Remakes tests/vectors/dubbo: capture_all.sh LIBS_2.6 LIBS_2.7 LIBS_3.2 NODE_MODULES OUT
# Each peer runs in a network namespace of its own, because Dubbo for Java listens on all addresses.
set -eu
here=$(dirname "$(realpath "$0")")
libs26=$(realpath "$1") libs27=$(realpath "$2") libs32=$(realpath "$3") node=$(realpath "$4")
out=$(realpath "$5")

capture() {
  unshare -n sh -c 'ip link set lo up; exec "$@"' sh python3 "$here/capture.py" "$@" --out "$out"
}

capture java --home "$libs26" --name java-2.6.12
capture java --home "$libs27" --name java-2.7.23 --long
capture java --home "$libs27" --name java-2.7.23-fastjson --serialization fastjson
capture java --home "$libs27" --name java-2.7.23-java --serialization java
capture java --home "$libs32" --name java-3.2.16
# fastjson2 refuses to encode half a surrogate pair.
capture java --home "$libs32" --name java-3.2.16-fastjson2 --serialization fastjson2 --unsent unicode
capture node --home "$node" --name node-3.0.0-rc6 --long
