#!/bin/bash -eu
# What OSS-Fuzz runs in its builder: every target of tests/fuzz, with its dictionary and its corpus. The compiler, its
# flags, sanitizers among them, and the fuzzing engine come from the environment.
#
# It is started in the checkout. README.md says how to try it elsewhere.

cmake -S . -B "$WORK/build" -G Ninja \
  -DCMAKE_BUILD_TYPE=None -DPython_EXECUTABLE="$(command -v python3)" \
  -DMETAPROTOCOL_FUZZ=ON -DMETAPROTOCOL_WERROR=OFF \
  -DMETAPROTOCOL_BUILD_MODULE=OFF -DMETAPROTOCOL_BUILD_PYTHON=OFF
cmake --build "$WORK/build" --target metaprotocol_fuzzers

for program in "$WORK"/build/fuzz/*_fuzzer; do
  name=$(basename "$program" _fuzzer)
  cp "$program" "$OUT/"
  if [ -f "tests/fuzz/$name.dict" ]; then cp "tests/fuzz/$name.dict" "$OUT/${name}_fuzzer.dict"; fi
  if [ -d "tests/fuzz/corpus/$name" ]; then
    (cd "tests/fuzz/corpus/$name" && python3 -m zipfile -c "$OUT/${name}_fuzzer_seed_corpus.zip" *)
  fi
done
