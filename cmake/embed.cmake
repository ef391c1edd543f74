# nibble_embed(TARGET NAME FILES...): adds `const char NAME[]` to a target, the bytes of the files one
# behind the other and a 0. The files are ASCII.
#
# This file is also the script that writes the C source, at build time.
if(CMAKE_SCRIPT_MODE_FILE)
  string(REPLACE "|" ";" FILES "${FILES}")
  set(bytes "")
  foreach(file IN LISTS FILES)
    file(READ ${file} hex HEX)
    string(APPEND bytes "${hex}")
  endforeach()
  string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}00")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  file(WRITE ${OUT} "extern const char ${NAME}[];\nconst char ${NAME}[] = {\n${bytes}};\n")
  return()
endif()

set(NIBBLE_EMBED ${CMAKE_CURRENT_LIST_FILE})

function(nibble_embed target name)
  set(out ${PROJECT_BINARY_DIR}/gen/${name}.c)
  list(JOIN ARGN "|" files)
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DOUT=${out} -DNAME=${name} "-DFILES=${files}" -P ${NIBBLE_EMBED}
    DEPENDS ${ARGN} ${NIBBLE_EMBED}
    COMMENT "embed ${name}"
    VERBATIM)
  target_sources(${target} PRIVATE ${out})
endfunction()
