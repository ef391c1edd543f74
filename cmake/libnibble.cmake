# libnibble, as a shared library and as an archive. Both are one object: the libraries of all folders
# but tools/, in which every symbol is local but the functions of nibble.h and nb_runtime.h.
set(NIBBLE_API "")
foreach(header lib/nibble.h runtime/nb_runtime.h)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${header})
  file(READ ${header} text)
  string(REGEX MATCHALL "[ *](nb|nibble)_[a-z_]+\\(" calls "${text}")
  list(APPEND NIBBLE_API ${calls})
endforeach()
list(TRANSFORM NIBBLE_API REPLACE "[ *(]" "")
list(REMOVE_DUPLICATES NIBBLE_API)

set(keep ${NIBBLE_API})
list(TRANSFORM keep PREPEND --keep-global-symbol=)
set(parts nibble_lib nibble_frontend nibble_passes nibble_codegen nibble_ir nibble_runtime nibble_onnx_proto)
set(archives ${parts})
list(TRANSFORM archives REPLACE "(.+)" "$<TARGET_FILE:\\1>")
set(object ${PROJECT_BINARY_DIR}/libnibble.o)
add_custom_command(OUTPUT ${object}
  COMMAND ${CMAKE_LINKER} -r -o ${object} --whole-archive ${archives}
  COMMAND ${CMAKE_OBJCOPY} ${keep} ${object}
  DEPENDS ${parts}
  COMMENT "libnibble.o" VERBATIM)
set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)

# The symbols' version is the API's major number.
list(JOIN NIBBLE_API "; " names)
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/libnibble.map
  CONTENT "NIBBLE_${PROJECT_VERSION_MAJOR} { global: @names@; local: *; };\n" @ONLY)

add_library(nibble_shared SHARED ${object})
target_link_libraries(nibble_shared PRIVATE nibble_llvm PkgConfig::xxhash PkgConfig::protobuf_c
  PkgConfig::lapacke PkgConfig::jansson Threads::Threads m ${CMAKE_DL_LIBS})
target_link_options(nibble_shared PRIVATE -Wl,--as-needed
  -Wl,--version-script=${PROJECT_BINARY_DIR}/libnibble.map)
set_target_properties(nibble_shared PROPERTIES OUTPUT_NAME nibble LINKER_LANGUAGE C
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})

add_library(nibble_static STATIC ${object})
set_target_properties(nibble_static PROPERTIES OUTPUT_NAME nibble LINKER_LANGUAGE C)
if(NIBBLE_COVERAGE)
  target_link_options(nibble_shared PRIVATE --coverage)
endif()
