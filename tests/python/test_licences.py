"""What is linked in is read from the maps of both linkers, and nothing of it may be unlisted."""

from __future__ import annotations

from pathlib import Path

import licences
import pytest

GNU_MAP = """\
Archive member included to satisfy reference by file (symbol)

libmetaprotocol_codecs.a(builtin.cc.o)
                              CMakeFiles/m.dir/f.cc.o (metaprotocol::Register(Codec&))
/usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a(floating_to_chars.o)
                              CMakeFiles/m.dir/f.cc.o (std::to_chars(char*, char*, double))
/usr/lib/libc_nonshared.a(atexit.oS)  CMakeFiles/m.dir/f.cc.o (atexit)

Discarded input sections

 .comment       0x0000000000000000       0x20 CMakeFiles/m.dir/f.cc.o

Linker script and memory map

LOAD /usr/lib/crti.o
LOAD CMakeFiles/m.dir/f.cc.o
LOAD libmetaprotocol_codecs.a
LOAD /usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a
LOAD /lib/libm.so.6
LOAD /usr/lib/libc_nonshared.a
 .text          0x0000000000001000       0x20 libmetaprotocol_codecs.a(other.cc.o)
"""

LLD_MAP = """\
     VMA      LMA     Size Align Out     In      Symbol
     270      270      420     8 .dynsym
     270      270      420     8         <internal>:(.dynsym)
   12f80    12f80     1234    16 .text
   12f80    12f80      100    16         CMakeFiles/m.dir/f.cc.o:(.text)
   12f80    12f80       80     1                 f(int)
   13080    13080       20     1                 g(std::__1::a (b):(c))
   130a0    130a0       20    16         libmetaprotocol_codecs.a(builtin.cc.o):(.text)
   130c0    130c0       20    16         /zig/o/d4/libc++.a(/zig/o/c8/d2s.o):(.text.d)
   130e0    130e0       20    16         /zig/o/d4/libc++.a(/zig/o/c8/d2s.o):(.text.e)
   13100    13100       20    16         /zig/o/add/libc_nonshared.a(/zig/o/6/stat-2.32.o):(.text)
"""


def test_gnus_map_names_the_members_of_archives_and_what_else_is_opened() -> None:
    assert set(licences.taken(GNU_MAP)) == {
        "libmetaprotocol_codecs.a(builtin.cc.o)",
        "/usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a(floating_to_chars.o)",
        "/usr/lib/libc_nonshared.a(atexit.oS)",
        "/usr/lib/crti.o",
        "CMakeFiles/m.dir/f.cc.o",
        "/lib/libm.so.6",
    }


def test_llds_map_names_each_object_of_which_something_is_kept() -> None:
    assert list(licences.taken(LLD_MAP)) == [
        "CMakeFiles/m.dir/f.cc.o",
        "libmetaprotocol_codecs.a(builtin.cc.o)",
        "/zig/o/d4/libc++.a(d2s.o)",
        "/zig/o/add/libc_nonshared.a(stat-2.32.o)",
    ]


@pytest.mark.parametrize(
    ("path", "component"),
    [
        ("/usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a(floating_to_chars.o)", "ryu"),
        ("/usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a(floating_from_chars.o)", "fast_float"),
        ("/usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a(string-inst.o)", "libstdc++"),
        ("/usr/lib/gcc/x86_64-linux-gnu/12/libgcc_eh.a(unwind-dw2.o)", "libstdc++"),
        ("/usr/lib/x86_64-linux-gnu/libc_nonshared.a(atexit.oS)", "glibc's static parts"),
        ("/zig/o/d4e3/libc++.a(d2s.o)", "ryu"),
        ("/zig/o/d4e3/libc++.a(string.o)", "libc++"),
        ("/zig/o/1bbe/libc++abi.a(cxa_guard.o)", "libc++"),
        ("/zig/o/cc41/libcompiler_rt.a(compiler_rt.o)", "compiler-rt of zig"),
        ("/a/ziglang/lib/libcxx/include/string", "libc++"),
        ("/a/ziglang/lib/include/stddef.h", "libc++"),
        ("/a/ziglang/lib/libc/include/generic-glibc/stdio.h", "glibc"),
        ("/a/ziglang/lib/libc/include/any-linux-any/linux/limits.h", "linux"),
    ],
)
def test_each_file_is_of_the_component_whose_licence_it_has(path: str, component: str) -> None:
    _, components = licences.listed()
    owner = next(item for item in components if item.takes(Path(path)))
    assert owner.name == component


def test_what_is_linked_in_and_not_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("libmetaprotocol.map", "_engine.map"):
        (tmp_path / name).write_text(f"{GNU_MAP}/usr/lib/libsecret.a(vault.o)\n")
    monkeypatch.setattr(licences, "read", lambda _: iter(()))
    found = licences.problems(tmp_path)
    assert "/usr/lib/libsecret.a(vault.o) is of no component of licences.toml" in found
    assert not [problem for problem in found if problem.startswith(str(tmp_path))]
    assert "re2 is listed, but no file of it was used" in found


def test_an_object_of_something_that_is_listed_as_not_linked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("libmetaprotocol.map", "_engine.map"):
        (tmp_path / name).write_text("LOAD /usr/include/linux/object.o\nLOAD /lib/libc.so.6\n")
    monkeypatch.setattr(licences, "read", lambda _: iter(()))
    found = licences.problems(tmp_path)
    assert "/usr/include/linux/object.o is linked in, but not listed so" in found
    assert not [problem for problem in found if "libc.so" in problem]
