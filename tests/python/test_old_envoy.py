"""In a process that lacks what Envoy 1.40 has, the module says what it needs instead of loading."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "python" / "metaprotocol" / "_native" / "libmetaprotocol.so"

# Has what writes the log and nothing else, and loads the module as Envoy does.
PROGRAM = r"""
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdint.h>

typedef struct { const char* data; size_t length; } Text;

bool envoy_dynamic_module_callback_log_enabled(uint32_t level) { return true; }
void envoy_dynamic_module_callback_log(uint32_t level, Text text) {
  printf("%.*s\n", (int)text.length, text.data);
}

int main(int argc, char** argv) {
  void* module = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (module == NULL) return fprintf(stderr, "%s\n", dlerror()), 2;
  const char* (*init)(void) =
      (const char* (*)(void))dlsym(module, "envoy_dynamic_module_on_program_init");
  return init() == NULL ? 0 : 1;
}
"""

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
    pytest.mark.skipif(not MODULE.is_file(), reason="the module is not built: make test ONLY=cpp"),
]


def test_what_is_missing_and_which_envoy_has_it_is_said(tmp_path: Path) -> None:
    source, program = tmp_path / "old.c", tmp_path / "old"
    source.write_text(PROGRAM)
    subprocess.run(["cc", "-rdynamic", "-o", program, source, "-ldl"], check=True)
    done = subprocess.run([program, MODULE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"it loaded, or could not be opened: {done.stderr}"
    assert "needs Envoy 1.38 or newer" in done.stdout
    for callback in ("network_filter_write", "lb_get_host_address", "get_concurrency"):
        assert callback in done.stdout
    assert "log_enabled" not in done.stdout, "that one is there"
