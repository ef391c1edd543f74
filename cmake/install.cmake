# What `cmake --install` puts in place: the program, libnibble with nibble.h, nb_pass.h, the runtime
# with its headers, a CMake package (find_package(Nibble)), pkg-config files, the Python module, the
# guides with their examples and the model they work on. All of it may be moved as a whole afterwards.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(NIBBLE_INCLUDE_DIR ${CMAKE_INSTALL_INCLUDEDIR}/nibble)
set(NIBBLE_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/Nibble)

install(TARGETS nibble nibble_runtime nibble_shared nibble_static)
# Installed headers stand in one folder.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS lib/nibble.h)
file(READ lib/nibble.h header)
string(REPLACE "\"passes/nb_pass.h\"" "\"nb_pass.h\"" header "${header}")
file(WRITE ${PROJECT_BINARY_DIR}/installed/nibble.h "${header}")
install(FILES ${PROJECT_BINARY_DIR}/installed/nibble.h passes/nb_pass.h DESTINATION ${NIBBLE_INCLUDE_DIR})
install(FILES runtime/nb_runtime.h runtime/nb_model.h DESTINATION ${NIBBLE_INCLUDE_DIR}/runtime)
install(FILES passes/WRITING_PASSES.md tools/INSPECTING.md lib/USING.md LICENSE
  DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES tests/models/sample/sample.onnx tests/models/sample/eval.npy tests/models/sample/calib.npy
  tests/plugin/outliers.c DESTINATION ${CMAKE_INSTALL_DATADIR}/nibble/sample)
install(DIRECTORY tests/install/library DESTINATION ${CMAKE_INSTALL_DATADIR}/nibble/examples)
install(DIRECTORY tests/plugin/examples DESTINATION ${CMAKE_INSTALL_DATADIR}/nibble)

install(DIRECTORY python/nibble DESTINATION ${CMAKE_INSTALL_DATADIR}/nibble/python PATTERN __pycache__ EXCLUDE)

# The version of the pass interface, as its header has it.
file(STRINGS passes/nb_pass.h NIBBLE_PASS_ABI REGEX "^#define NB_PASS_ABI_M[AI][JN]OR ")
string(REGEX REPLACE "[^0-9;]" "" NIBBLE_PASS_ABI "${NIBBLE_PASS_ABI}")
list(JOIN NIBBLE_PASS_ABI "." NIBBLE_PASS_ABI)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS passes/nb_pass.h)

configure_package_config_file(cmake/NibbleConfig.cmake.in ${PROJECT_BINARY_DIR}/NibbleConfig.cmake
  INSTALL_DESTINATION ${NIBBLE_PACKAGE_DIR}
  PATH_VARS NIBBLE_INCLUDE_DIR CMAKE_INSTALL_BINDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/NibbleConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/NibbleConfig.cmake ${PROJECT_BINARY_DIR}/NibbleConfigVersion.cmake
  DESTINATION ${NIBBLE_PACKAGE_DIR})

# The way from the .pc file to the prefix, so that neither has to stay where it was installed.
file(RELATIVE_PATH NIBBLE_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
foreach(package nibble libnibble)
  configure_file(cmake/${package}.pc.in ${PROJECT_BINARY_DIR}/${package}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${package}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
