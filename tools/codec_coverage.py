"""How much of `codecs/` the committed inputs of the fuzz targets reach, by folder.

    python tools/codec_coverage.py [--jobs N]   # after `make native`; needs clang and llvm

Only the codecs and the targets are compiled anew, with clang's source coverage, in build/coverage.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "coverage"
RELEASE = ROOT / "build" / "release"
FLAGS = [
    *("-std=c++20", "-O1", "-g0", "-fprofile-instr-generate", "-fcoverage-mapping"),
    *("-fsanitize=fuzzer-no-link", f"-I{ROOT}", f"-I{ROOT}/include", f"-I{RELEASE}"),
    *("-isystem", f"{ROOT}/build/third_party/nlohmann_json"),
    *("-isystem", f"{ROOT}/build/third_party/re2"),
]


def tool(*names: str) -> str:
    """The first of these programs that is there."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise SystemExit(f"none of {', '.join(names)} is installed")
    return found


def compiled(clang: str, source: Path) -> Path:
    """The object of one source file, made anew if that is newer."""
    made = OUT / source.relative_to(ROOT).with_suffix(".o")
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([clang, *FLAGS, "-c", source, "-o", made], check=True)
    return made


def inputs(target: str) -> list[Path]:
    """What a target is given."""
    corpus = ROOT / "tests" / "fuzz" / "corpus"
    return [folder for folder in (corpus / target, corpus / target.removesuffix("_fuzzer"))
            if folder.is_dir()]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles, replays, and prints lines covered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    jobs = parser.parse_args(arguments).jobs
    clang = tool("clang++-14", "clang++")
    profdata, cov = tool("llvm-profdata-14", "llvm-profdata"), tool("llvm-cov-14", "llvm-cov")
    codecs = sorted((ROOT / "codecs").rglob("*.cc"))
    targets = sorted((ROOT / "tests" / "fuzz").glob("*_fuzzer.cc"))
    with ThreadPoolExecutor(jobs) as pool:
        objects = list(pool.map(lambda source: compiled(clang, source), [*codecs, *targets]))
    archives = [RELEASE / "libmetaprotocol_engine.a", *RELEASE.rglob("libre2.a")]
    programs, profiles = [], []
    for source, main_object in zip(targets, objects[len(codecs) :], strict=True):
        program = OUT / source.stem
        subprocess.run(
            [clang, "-fprofile-instr-generate", "-fsanitize=fuzzer", main_object,
             *objects[: len(codecs)], *archives, "-rdynamic", "-lpthread", "-ldl", "-o", program],
            check=True,
        )  # fmt: skip
        profile = program.with_suffix(".profraw")
        done = subprocess.run(
            [program, "-runs=0", *inputs(source.stem)], capture_output=True, text=True, check=False,
            env={**os.environ, "LLVM_PROFILE_FILE": str(profile)},
        )  # fmt: skip
        if done.returncode != 0:
            sys.stderr.write(done.stderr[-2000:])
            return 1
        programs.append(program)
        profiles.append(profile)
    merged = OUT / "all.profdata"
    subprocess.run([profdata, "merge", *profiles, "-o", merged], check=True)
    others = [option for program in programs[1:] for option in ("-object", program)]
    told = subprocess.run(
        [cov, "export", "-summary-only", f"-instr-profile={merged}", programs[0], *others],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    lines: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for file in json.loads(told.stdout)["data"][0]["files"]:
        path = Path(file["filename"])
        if not path.is_relative_to(ROOT / "codecs"):
            continue
        summary = file["summary"]["lines"]
        for name in (path.relative_to(ROOT).parent.as_posix(), "codecs in all"):
            lines[name][0] += summary["covered"]
            lines[name][1] += summary["count"]
    for name, (covered, count) in sorted(lines.items()):
        share = 100 * covered / count
        sys.stdout.write(f"{name}: {covered} of {count} lines, {share:.0f} %\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
