# The warnings under which all C code here is clean, with gcc and clang.
set(POOLMALLOC_WARNINGS -Wall -Wextra -Wundef -Wshadow -Wconversion -Wpointer-arith
    $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>)
if(POOLMALLOC_WERROR)
  list(APPEND POOLMALLOC_WARNINGS -Werror)
endif()
