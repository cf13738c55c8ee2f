# For wheels that run on distributions older than the one that builds them: clang and libc++ of the PyPI
# package ziglang, linked against the C library of manylinux_2_28, which is older than what Envoy's own
# package asks for. zig-c++ says where zig is looked for.
set(CMAKE_CXX_COMPILER ${CMAKE_CURRENT_LIST_DIR}/zig-c++)
set(CMAKE_AR ${CMAKE_CURRENT_LIST_DIR}/zig-ar)
set(CMAKE_RANLIB ${CMAKE_CURRENT_LIST_DIR}/zig-ranlib)
# There is no clang-scan-deps beside it, and no module to scan for.
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)
# pybind11 would try link-time optimization, which is not used and costs a build of libc++.
set(HAS_FLTO TRUE CACHE INTERNAL "")
set(HAS_FLTO_THIN TRUE CACHE INTERNAL "")
