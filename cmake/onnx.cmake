# nibble_onnx_proto: C for ONNX's own schema, generated at build time by protoc-c.
#
# The schema is onnx/onnx.proto of the system's ONNX development files; the result is included as
# "onnx/onnx.pb-c.h". It is compiled apart from our code because our warnings do not apply to it.
find_path(NIBBLE_ONNX_INCLUDE onnx/onnx.proto REQUIRED)
find_program(NIBBLE_PROTOC_C protoc-c REQUIRED)

set(onnx_gen ${PROJECT_BINARY_DIR}/gen)
file(MAKE_DIRECTORY ${onnx_gen})
add_custom_command(
  OUTPUT ${onnx_gen}/onnx/onnx.pb-c.c ${onnx_gen}/onnx/onnx.pb-c.h
  COMMAND ${NIBBLE_PROTOC_C} --proto_path=${NIBBLE_ONNX_INCLUDE} --c_out=${onnx_gen} onnx/onnx.proto
  DEPENDS ${NIBBLE_ONNX_INCLUDE}/onnx/onnx.proto
  COMMENT "protoc-c onnx.proto"
  VERBATIM)
add_library(nibble_onnx_proto STATIC EXCLUDE_FROM_ALL
  ${onnx_gen}/onnx/onnx.pb-c.c ${onnx_gen}/onnx/onnx.pb-c.h)
target_include_directories(nibble_onnx_proto SYSTEM PUBLIC ${onnx_gen})
target_link_libraries(nibble_onnx_proto PUBLIC PkgConfig::protobuf_c)
set_property(TARGET nibble_onnx_proto PROPERTY C_CLANG_TIDY "")
