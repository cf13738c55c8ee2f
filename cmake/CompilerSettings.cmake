# How our own code is compiled: standard, warnings, sanitizers. Third-party code takes only what must
# be the same everywhere (position independence, visibility, sanitizers).

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, Debug or RelWithDebInfo" FORCE)
endif()

# Messages name files from the root of the tree, not where it lay on the builder's machine.
add_compile_options("-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

set(METAPROTOCOL_SANITIZE "" CACHE STRING
    "Empty, address (with undefined), thread, or undefined (the module for a stock Envoy, clang only)")
set_property(CACHE METAPROTOCOL_SANITIZE PROPERTY STRINGS "" address thread undefined)

if(METAPROTOCOL_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all)
  add_link_options(-fsanitize=address,undefined)
elseif(METAPROTOCOL_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread)
  add_link_options(-fsanitize=thread)
elseif(METAPROTOCOL_SANITIZE STREQUAL "undefined")
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "METAPROTOCOL_SANITIZE=undefined needs clang; the compiler is "
                        "${CMAKE_CXX_COMPILER_ID}. Use -DCMAKE_CXX_COMPILER=clang++-14")
  endif()
  # Checks of vtables and of functions' types need type information that Envoy does not have. The
  # runtime is a shared library: the static one can only be part of a program.
  add_compile_options(-fsanitize=undefined -fno-sanitize=vptr,function -fno-sanitize-recover=all)
  execute_process(
    COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libclang_rt.ubsan_standalone-${CMAKE_SYSTEM_PROCESSOR}.so
    OUTPUT_VARIABLE ubsan_runtime OUTPUT_STRIP_TRAILING_WHITESPACE)
  get_filename_component(ubsan_folder "${ubsan_runtime}" DIRECTORY)
  add_link_options(-fsanitize=undefined -shared-libsan -Wl,-rpath,${ubsan_folder})
elseif(METAPROTOCOL_SANITIZE)
  message(FATAL_ERROR "METAPROTOCOL_SANITIZE is \"${METAPROTOCOL_SANITIZE}\"; "
                      "allowed are \"\", address, thread and undefined")
endif()
if(METAPROTOCOL_SANITIZE)
  # -O1 and -g1 keep the stacks of reports readable and the tests quick. Assertions stop what uses the
  # engine, or is used by it, in a way that the interfaces do not allow.
  add_compile_options(-O1 -g1 -fno-omit-frame-pointer -UNDEBUG)
  # With its sanitizers a program is large, and there is one for each fuzz target.
  find_program(METAPROTOCOL_LLD NAMES ld.lld-14 ld.lld)
  if(METAPROTOCOL_LLD AND CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    add_link_options(--ld-path=${METAPROTOCOL_LLD})
  endif()
endif()

option(METAPROTOCOL_FUZZ "Build the fuzz targets in tests/fuzz (clang only)" OFF)
if(METAPROTOCOL_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "METAPROTOCOL_FUZZ needs clang (libFuzzer); the compiler is "
                        "${CMAKE_CXX_COMPILER_ID}. Use -DCMAKE_CXX_COMPILER=clang++-14")
  endif()
  # OSS-Fuzz names its engine so, and has the compiler's flags for it in CXXFLAGS.
  if(DEFINED ENV{LIB_FUZZING_ENGINE})
    set(METAPROTOCOL_FUZZING_ENGINE $ENV{LIB_FUZZING_ENGINE})
  else()
    set(METAPROTOCOL_FUZZING_ENGINE -fsanitize=fuzzer)
    add_compile_options(-fsanitize=fuzzer-no-link)
  endif()
endif()

option(METAPROTOCOL_WERROR "Treat warnings in our own code as errors" ON)

# Link this to every target with our own sources.
add_library(metaprotocol_options INTERFACE)
target_compile_options(metaprotocol_options INTERFACE
  -Wall -Wextra $<$<BOOL:${METAPROTOCOL_WERROR}>:-Werror>
  # Callbacks into Envoy and libc are called through the GOT: the module is loaded with all symbols
  # bound, so a PLT stub would only be one more jump.
  -fno-plt)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # gcc 12 sees an overlap in `"literal" + std::string` that cannot be (GCC bug 105651).
  target_compile_options(metaprotocol_options INTERFACE -Wno-restrict)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND METAPROTOCOL_SANITIZE)
  # gcc's flow analysis sees false paths in instrumented code.
  target_compile_options(metaprotocol_options INTERFACE -Wno-maybe-uninitialized)
endif()
target_include_directories(metaprotocol_options INTERFACE ${PROJECT_SOURCE_DIR})

# Most of what compiling takes is reading headers and making the same inline functions once more. So
# tests, and everything that a sanitizer is in, are compiled several files of a folder at a time: names
# in anonymous namespaces are those of the whole folder (of all of src and of all of envoy_ext). What is
# installed or measured is compiled file by file, so that each is seen to include what it needs.
option(METAPROTOCOL_UNITY "Compile tests and builds with a sanitizer several files at a time" ON)
set(METAPROTOCOL_UNITY_FILES 8)

function(metaprotocol_unity target)
  if(NOT METAPROTOCOL_UNITY)
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    file(RELATIVE_PATH path ${PROJECT_SOURCE_DIR} ${source})
    if(NOT path MATCHES "^(src|codecs|envoy_ext|tests)/")
      continue()
    endif()
    get_filename_component(folder ${path} DIRECTORY)
    string(REGEX REPLACE "^(src|envoy_ext)/.*" "\\1" folder ${folder})
    string(MAKE_C_IDENTIFIER ${folder} group)
    if(NOT DEFINED ${group}_count)
      set(${group}_count 0)
    endif()
    math(EXPR part "${${group}_count} / ${METAPROTOCOL_UNITY_FILES}")
    math(EXPR ${group}_count "${${group}_count} + 1")
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group}_${part})
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()

# The same for what is only compiled so with a sanitizer.
function(metaprotocol_unity_if_sanitized target)
  if(METAPROTOCOL_SANITIZE)
    metaprotocol_unity(${target})
  endif()
endfunction()
