# For codecs and filters in libraries of their own:
#
#     find_package(metaprotocol 1 REQUIRED)     # CMAKE_PREFIX_PATH: what metaprotocol.include() says
#     metaprotocol_add_codec(my_codec my_codec.cc)
#     metaprotocol_add_filter(my_filter my_filter.cc)
#
# With -DMETAPROTOCOL_FUZZ=ON and clang there is my_codec_fuzzer as well: `metaprotocol fuzz --engine libfuzzer`
# builds and runs it.
if(TARGET metaprotocol::codec)
  return()
endif()
add_library(metaprotocol::codec INTERFACE IMPORTED)
get_filename_component(_metaprotocol_include "${CMAKE_CURRENT_LIST_DIR}" DIRECTORY)
set_target_properties(metaprotocol::codec PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${_metaprotocol_include}"
  INTERFACE_COMPILE_FEATURES cxx_std_17)
option(METAPROTOCOL_FUZZ "A libFuzzer target for each codec, with sanitizers (clang only)" OFF)
set(_metaprotocol_package "${_metaprotocol_include}/..")
unset(_metaprotocol_include)

# <name>.so of these sources, which shows nothing but its entry and needs no C++ runtime where Envoy
# runs.
function(metaprotocol_add_filter name)
  add_library(${name} MODULE ${ARGN})
  target_link_libraries(${name} PRIVATE metaprotocol::codec)
  target_link_options(${name} PRIVATE -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL)
  set_target_properties(${name} PROPERTIES
    PREFIX "" CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endfunction()

function(metaprotocol_add_codec name)
  metaprotocol_add_filter(${name} ${ARGN})  # the same kind of file
  if(METAPROTOCOL_FUZZ)
    _metaprotocol_add_fuzzer(${name}_fuzzer ${ARGN})
  endif()
endfunction()

# A program of a codec's sources and of the rules that codecs keep. The rules are not compiled for coverage:
# libFuzzer shall follow the codec.
function(_metaprotocol_add_fuzzer name)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "METAPROTOCOL_FUZZ needs clang; use -DCMAKE_CXX_COMPILER=clang++")
  endif()
  set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all)
  # In a checkout they are at its root.
  set(package "${_metaprotocol_package}")
  set(sources "${package}/include/fuzzing")
  if(NOT EXISTS "${sources}/src/codec/conformance.cc")
    set(sources "${package}")
  endif()
  if(NOT TARGET metaprotocol_rules)
    file(GLOB rules "${sources}/src/codec/*.cc" "${sources}/codecs/external/*.cc")
    add_library(metaprotocol_rules OBJECT ${rules} "${package}/include/fuzzing/library_fuzzer.cc")
    target_include_directories(metaprotocol_rules PRIVATE "${sources}" "${package}")
    target_compile_features(metaprotocol_rules PRIVATE cxx_std_20)
    target_compile_options(metaprotocol_rules PRIVATE ${sanitizers} -O1 -g0)
    set_target_properties(metaprotocol_rules PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
  endif()
  add_executable(${name} ${ARGN} $<TARGET_OBJECTS:metaprotocol_rules>)
  target_link_libraries(${name} PRIVATE metaprotocol::codec ${CMAKE_DL_LIBS})
  target_compile_options(${name} PRIVATE ${sanitizers} -fsanitize=fuzzer-no-link)
  target_link_options(${name} PRIVATE ${sanitizers} -fsanitize=fuzzer)
  # It loads itself, as the codec's library.
  set_target_properties(${name} PROPERTIES ENABLE_EXPORTS ON)
endfunction()
