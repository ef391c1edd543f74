# nibble_llvm: headers and shared library of the LLVM chosen by NIBBLE_LLVM, linked by
# nibble_codegen alone. Asked from that version's own llvm-config, because several versions may be
# installed side by side.
find_program(NIBBLE_LLVM_CONFIG_${NIBBLE_LLVM} NAMES llvm-config llvm-config-${NIBBLE_LLVM}
  HINTS /usr/lib/llvm-${NIBBLE_LLVM}/bin NO_CACHE REQUIRED)
set(llvm_config ${NIBBLE_LLVM_CONFIG_${NIBBLE_LLVM}})

foreach(fact version includedir libdir)
  execute_process(COMMAND ${llvm_config} --${fact}
    OUTPUT_VARIABLE llvm_${fact} OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endforeach()
execute_process(COMMAND ${llvm_config} --link-shared --libs
  OUTPUT_VARIABLE llvm_libs OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT llvm_version MATCHES "^${NIBBLE_LLVM}\\.")
  message(FATAL_ERROR "${llvm_config} is LLVM ${llvm_version}, expected ${NIBBLE_LLVM}")
endif()

add_library(nibble_llvm INTERFACE)
target_include_directories(nibble_llvm SYSTEM INTERFACE ${llvm_includedir})
target_link_directories(nibble_llvm INTERFACE ${llvm_libdir})
target_link_libraries(nibble_llvm INTERFACE ${llvm_libs})
