# What runs together lies together, in the order of src/preload/order.txt, constants in front of it, but for those of reports: the
# linker's own script, where it tells one (GNU's does), with our functions before all others. POOLMALLOC_ORDER: that script, or nothing.
set(ORDER ${PROJECT_SOURCE_DIR}/src/preload/order.txt)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${ORDER})
file(STRINGS ${ORDER} ORDER_LINES REGEX "^[^#]")
string(REGEX REPLACE "[; ]+" ";" ORDER_NAMES "${ORDER_LINES}")
list(TRANSFORM ORDER_NAMES REPLACE "(.+)" "*(.text.\\1 .text.\\1.* .text.unlikely.\\1 .text.unlikely.\\1.* .text.startup.\\1 .text.exit.\\1)\n")
string(CONCAT ORDER_FIRST "*libc_nonshared.a:(.text)\n" ${ORDER_NAMES})

separate_arguments(ORDER_FLAGS NATIVE_COMMAND "${CMAKE_C_FLAGS} ${CMAKE_SHARED_LINKER_FLAGS}")
execute_process(COMMAND ${CMAKE_C_COMPILER} ${ORDER_FLAGS} -shared -nostdlib -Wl,-z,now,-z,noseparate-code,-z,relro,--verbose
  OUTPUT_VARIABLE ORDER_TOLD ERROR_QUIET)
set(POOLMALLOC_ORDER)
if(ORDER_TOLD MATCHES "\n=====+\n(.*)\n=====+\n")
  string(REGEX REPLACE "\n  \\.rodata( +:)" "\n  .rodata_rare\\1" ORDER_SCRIPT "${CMAKE_MATCH_1}")
  if(ORDER_SCRIPT MATCHES "\n  \\.text +:\n +{\n")
    set(ORDER_RODATA "EXCLUDE_FILE(*/src/insight/* */src/explicit/*) *(.rodata .rodata.*)")
    string(REPLACE "${CMAKE_MATCH_0}" "\n  .rodata : { ${ORDER_RODATA} }${CMAKE_MATCH_0}${ORDER_FIRST}" ORDER_SCRIPT "${ORDER_SCRIPT}")
    set(POOLMALLOC_ORDER ${PROJECT_BINARY_DIR}/order.ld)
    file(CONFIGURE OUTPUT ${POOLMALLOC_ORDER} CONTENT "${ORDER_SCRIPT}" @ONLY)
  endif()
endif()
