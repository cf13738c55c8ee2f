# RE2, nlohmann_json, libyaml, GoogleTest and the build-time Python; see tools/fetch_sources.py for why RE2 and
# libyaml are compiled here. Downloads live outside the build folder proper, so that all builds of a tree share them.

set(METAPROTOCOL_THIRD_PARTY_DIR "${PROJECT_SOURCE_DIR}/build/third_party" CACHE PATH
    "Where fetched sources are kept")
set(METAPROTOCOL_RE2_SOURCE_DIR "" CACHE PATH
    "An RE2 2022-06-01 source tree to use instead of fetching one")

find_package(Python 3.11 REQUIRED COMPONENTS Interpreter OPTIONAL_COMPONENTS Development.Module)
if(METAPROTOCOL_BUILD_PYTHON AND NOT Python_Development.Module_FOUND)
  if(SKBUILD)
    message(FATAL_ERROR "Python's headers are missing; on Debian: apt-get install python3-dev")
  endif()
  message(WARNING "No Python bindings: Python's headers are missing (Debian: python3-dev)")
  set(METAPROTOCOL_BUILD_PYTHON OFF)
endif()

# Runs tools/fetch_sources.py unless `proof` already exists below the source's folder.
function(metaprotocol_fetch name proof)
  if(EXISTS "${METAPROTOCOL_THIRD_PARTY_DIR}/${name}/${proof}")
    return()
  endif()
  message(STATUS "Fetching the source of ${name}")
  execute_process(
    COMMAND ${Python_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/fetch_sources.py ${name}
            --destination ${METAPROTOCOL_THIRD_PARTY_DIR}
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${output}")
  endif()
  message(STATUS "${output}")
endfunction()

# --- RE2
if(METAPROTOCOL_RE2_SOURCE_DIR)
  set(re2_dir "${METAPROTOCOL_RE2_SOURCE_DIR}")
else()
  metaprotocol_fetch(re2 re2/perl_groups.cc)
  set(re2_dir "${METAPROTOCOL_THIRD_PARTY_DIR}/re2")
endif()
add_library(re2 STATIC
  ${re2_dir}/re2/bitstate.cc
  ${re2_dir}/re2/compile.cc
  ${re2_dir}/re2/dfa.cc
  ${re2_dir}/re2/filtered_re2.cc
  ${re2_dir}/re2/mimics_pcre.cc
  ${re2_dir}/re2/nfa.cc
  ${re2_dir}/re2/onepass.cc
  ${re2_dir}/re2/parse.cc
  ${re2_dir}/re2/perl_groups.cc
  ${re2_dir}/re2/prefilter.cc
  ${re2_dir}/re2/prefilter_tree.cc
  ${re2_dir}/re2/prog.cc
  ${re2_dir}/re2/re2.cc
  ${re2_dir}/re2/regexp.cc
  ${re2_dir}/re2/set.cc
  ${re2_dir}/re2/simplify.cc
  ${re2_dir}/re2/stringpiece.cc
  ${re2_dir}/re2/tostring.cc
  ${re2_dir}/re2/unicode_casefold.cc
  ${re2_dir}/re2/unicode_groups.cc
  ${re2_dir}/util/rune.cc
  ${re2_dir}/util/strutil.cc)
target_include_directories(re2 SYSTEM PUBLIC ${re2_dir})
target_compile_options(re2 PRIVATE -w)
# RE2 locks with pthread_rwlock and std::call_once.
find_package(Threads REQUIRED)
target_link_libraries(re2 PUBLIC Threads::Threads)

# --- nlohmann_json
find_package(nlohmann_json 3.9 QUIET)
if(NOT nlohmann_json_FOUND)
  metaprotocol_fetch(nlohmann_json nlohmann/json.hpp)
  add_library(metaprotocol_json INTERFACE)
  target_include_directories(metaprotocol_json SYSTEM INTERFACE
                             ${METAPROTOCOL_THIRD_PARTY_DIR}/nlohmann_json)
  add_library(nlohmann_json::nlohmann_json ALIAS metaprotocol_json)
endif()

# --- libyaml, of which reading is used. As C++, which it is as well: no second compiler has to be found.
if(METAPROTOCOL_BUILD_PYTHON)
  metaprotocol_fetch(libyaml src/scanner.c)
  set(yaml_dir "${METAPROTOCOL_THIRD_PARTY_DIR}/libyaml")
  set(yaml_sources ${yaml_dir}/src/api.c ${yaml_dir}/src/parser.c ${yaml_dir}/src/reader.c
                   ${yaml_dir}/src/scanner.c)
  set_source_files_properties(${yaml_sources} PROPERTIES LANGUAGE CXX)
  add_library(metaprotocol_yaml STATIC ${yaml_sources})
  target_include_directories(metaprotocol_yaml SYSTEM PUBLIC ${yaml_dir}/include)
  target_compile_definitions(metaprotocol_yaml PUBLIC YAML_DECLARE_STATIC PRIVATE
    YAML_VERSION_MAJOR=0 YAML_VERSION_MINOR=2 YAML_VERSION_PATCH=5 YAML_VERSION_STRING="0.2.5")
  target_compile_options(metaprotocol_yaml PRIVATE -w)
endif()

# --- pybind11, from the Python environment that the build runs in
if(METAPROTOCOL_BUILD_PYTHON)
  if(NOT pybind11_DIR)
    execute_process(COMMAND ${Python_EXECUTABLE} -m pybind11 --cmakedir
      OUTPUT_VARIABLE pybind11_found OUTPUT_STRIP_TRAILING_WHITESPACE
      RESULT_VARIABLE result ERROR_QUIET)
    if(result EQUAL 0)
      set(pybind11_DIR "${pybind11_found}" CACHE PATH "pybind11's CMake files")
    endif()
  endif()
  set(PYBIND11_FINDPYTHON ON)
  find_package(pybind11 2.11 CONFIG REQUIRED)
endif()

# --- GoogleTest
if(METAPROTOCOL_BUILD_TESTS)
  find_package(GTest QUIET)
  if(NOT GTest_FOUND)
    metaprotocol_fetch(googletest googletest/src/gtest-all.cc)
    set(gtest_dir "${METAPROTOCOL_THIRD_PARTY_DIR}/googletest/googletest")
    add_library(metaprotocol_gtest STATIC ${gtest_dir}/src/gtest-all.cc ${gtest_dir}/src/gtest_main.cc)
    target_include_directories(metaprotocol_gtest SYSTEM PUBLIC ${gtest_dir}/include
                               PRIVATE ${gtest_dir})
    target_compile_options(metaprotocol_gtest PRIVATE -w)
    target_link_libraries(metaprotocol_gtest PUBLIC Threads::Threads)
    add_library(GTest::gtest_main ALIAS metaprotocol_gtest)
  endif()
endif()
