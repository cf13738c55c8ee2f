"""How our own C++ is compiled and linked with Bazel: the counterpart of cmake/CompilerSettings.cmake."""

_COPTS = [
    "-std=c++20",
    "-Wall",
    "-Wextra",
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
]

def metaprotocol_cc_library(name, srcs, hdrs, deps = [], generated_srcs = [], **kwargs):
    """A library of ours.

    Args:
      name: the target.
      srcs: its sources.
      hdrs: its headers, included by their path from the root of the repository.
      deps: libraries it uses.
      generated_srcs: sources from other repositories.
      **kwargs: passed on to cc_library.
    """
    native.cc_library(
        name = name,
        srcs = srcs + generated_srcs,
        hdrs = hdrs,
        copts = _COPTS,
        deps = deps,
        **kwargs
    )

def metaprotocol_module(name, exports, deps):
    """A self-contained shared library that shows only what the version script `exports` lists.

    Envoy's callbacks stay undefined in it: the Envoy process that loads it has them. The C++ library is
    linked in by what .bazelrc says.
    """
    native.cc_binary(
        name = name,
        linkshared = True,
        linkopts = [
            "-Wl,--version-script=$(execpath %s)" % exports,
            "-Wl,-z,now",
            "-Wl,--gc-sections",
            "-lpthread",
            "-ldl",
        ],
        deps = deps + [exports],
    )
