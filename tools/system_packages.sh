#!/usr/bin/env bash
# Makes sure that what only the system can provide is there: a C++ compiler, Python with venv, and for
# the tests clang (second compiler, sanitizers, libFuzzer) with its linker. As root on Debian or Ubuntu
# it installs what is missing and says so; otherwise it says what to type.
#
#   tools/system_packages.sh run     what building and running needs: fails if something is missing
#   tools/system_packages.sh test    also what only tests use: those do without, and say so
#   tools/system_packages.sh peers   the runtimes of independent clients and servers (node, Java),
#                                    programs that read, keep and run container images, and Prometheus
#   tools/system_packages.sh mesh    what a mesh on one machine needs (Go is not among it: Debian's is
#                                    too old)
set -euo pipefail

purpose=${1:?usage: tools/system_packages.sh run|test|peers}
python=${PYTHON:-python3}
required=()
optional=()

has() { command -v "$1" >/dev/null 2>&1; }

has "${CXX:-g++}" || required+=(g++)
if ! has "$python"; then
  required+=(python3 python3-venv python3-dev)
else
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed; $python is $("$python" --version 2>&1)." \
         "Name another one: make PYTHON=python3.12 ..." >&2
    exit 1
  fi
  "$python" -c 'import ensurepip, venv' 2>/dev/null || required+=(python3-venv)
  "$python" -c 'import os, sysconfig, sys
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
    required+=(python3-dev)
fi
if [ "$purpose" = test ]; then
  has clang++-14 || has clang++ || optional+=(clang-14)
  [ -e /usr/lib/llvm-14/lib/clang ] && compgen -G '/usr/lib/llvm-14/lib/clang/*/lib/linux/libclang_rt.fuzzer-*' \
    >/dev/null || optional+=(libclang-rt-14-dev)
  has ld.lld-14 || has ld.lld || optional+=(lld-14)
fi
if [ "$purpose" = peers ]; then
  has npm || optional+=(nodejs npm)
  has java || optional+=(default-jdk-headless)
  has mvn || optional+=(maven)
  # Images are read and run by other programs than those that made them.
  has skopeo || optional+=(skopeo)
  has runc || optional+=(runc)
  # Has the server, too, under another name, and starts no service.
  has redis-server || has redis-check-rdb || optional+=(redis-tools)
fi

if [ "$purpose" = mesh ]; then
  has ip || required+=(iproute2)
  has iptables || required+=(iptables)
  has openssl || required+=(openssl)
  has setpriv || required+=(util-linux)
fi

# Debian's package of Prometheus would start a service: only its programs are wanted, below this
# folder, for which nobody needs to be root.
prometheus=$(dirname "${BASH_SOURCE[0]}")/../build/third_party/prometheus
unpack_prometheus() {
  local folder
  folder=$(mktemp -d)
  (
    cd "$folder"
    apt-get -q download prometheus || { apt-get -q update && apt-get -q download prometheus; }
    dpkg-deb -x prometheus_*.deb unpacked
  ) >"$folder/log" 2>&1 || { tail -n 3 "$folder/log" >&2; rm -rf "$folder"; return 1; }
  mkdir -p "$prometheus"
  cp -r "$folder/unpacked/usr" "$prometheus/"
  rm -rf "$folder"
}
if [ "$purpose" = peers ] && ! has prometheus && [ ! -x "$prometheus/usr/bin/prometheus" ]; then
  if has apt-get && has dpkg-deb; then
    echo "Unpacking Debian's Prometheus into $prometheus"
    unpack_prometheus || echo "Prometheus cannot be had; the tests with it are skipped." >&2
  else
    echo "Missing: prometheus; the tests with it are skipped." >&2
  fi
fi

missing=("${required[@]}" "${optional[@]}")
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && has apt-get; then
  echo "Installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  if (apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}") >"$log" 2>&1
  then
    rm -f "$log"
    exit 0
  fi
  tail -n 5 "$log" >&2
  rm -f "$log"
  echo "apt-get could not install them; the error is above." >&2
else
  echo "Missing: ${missing[*]}. On Debian or Ubuntu: sudo apt-get install -y ${missing[*]}" >&2
fi
[ ${#required[@]} -eq 0 ]
