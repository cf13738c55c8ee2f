# For codecs in libraries of their own:
#
#     find_package(metaprotocol 1 REQUIRED)     # CMAKE_PREFIX_PATH: what metaprotocol.include() says
#     metaprotocol_add_codec(my_codec my_codec.cc)
if(TARGET metaprotocol::codec)
  return()
endif()
add_library(metaprotocol::codec INTERFACE IMPORTED)
get_filename_component(_metaprotocol_include "${CMAKE_CURRENT_LIST_DIR}" DIRECTORY)
set_target_properties(metaprotocol::codec PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${_metaprotocol_include}"
  INTERFACE_COMPILE_FEATURES cxx_std_17)
unset(_metaprotocol_include)

# <name>.so of these sources, which shows nothing but its entry and needs no C++ runtime where Envoy
# runs.
function(metaprotocol_add_codec name)
  add_library(${name} MODULE ${ARGN})
  target_link_libraries(${name} PRIVATE metaprotocol::codec)
  target_link_options(${name} PRIVATE -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL)
  set_target_properties(${name} PROPERTIES
    PREFIX "" CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endfunction()
