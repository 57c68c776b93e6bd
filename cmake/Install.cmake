# cmake --install: libraries, headers, tool, man pages, pkg-config files, CMake package. cpack: a Debian package in one piece
# (debian/ makes those of a distribution).
include(CMakePackageConfigHelpers)

# Some packagers give absolute folders. Below the prefix they mean the same as relative ones, with which what is installed may move.
foreach(folder LIBDIR INCLUDEDIR BINDIR MANDIR DATADIR DOCDIR)
  file(RELATIVE_PATH below ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_${folder}})
  if(NOT below MATCHES "^\\.\\.")
    set(CMAKE_INSTALL_${folder} ${below})
  endif()
endforeach()

set(INSTALLED poolmalloc_core)
foreach(library poolmalloc_so poolmalloc_hardened_so)
  if(TARGET ${library})
    list(APPEND INSTALLED ${library})
  endif()
endforeach()
install(TARGETS ${INSTALLED} EXPORT poolmalloc-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES man/poolmalloc.3 man/pm_pool.3 man/pm_arena.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
install(FILES LICENSE README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/examples DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES docs/statistics.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES scripts/poolmalloc-gdb.py DESTINATION ${CMAKE_INSTALL_DATADIR}/poolmalloc)
if(TARGET poolmalloc_so)
  install(FILES man/poolmalloc.7 DESTINATION ${CMAKE_INSTALL_MANDIR}/man7)
endif()
if(TARGET poolmalloc_tool)
  install(TARGETS poolmalloc_tool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES man/poolmalloc.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES completion/poolmalloc.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME poolmalloc)
  install(FILES completion/_poolmalloc DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
endif()

# Written while installing, when the prefix is known.
function(pkgconfig_install name description libs)
  install(CODE "
    set(NAME \"${name}\")
    set(DESCRIPTION \"${description}\")
    set(VERSION \"${PROJECT_VERSION}\")
    set(LIBS \"${libs}\")
    set(LIBDIR \"${CMAKE_INSTALL_LIBDIR}\")
    set(INCLUDEDIR \"${CMAKE_INSTALL_INCLUDEDIR}\")
    set(TEMPLATE \"${PROJECT_SOURCE_DIR}/cmake/poolmalloc.pc.in\")
    set(WRITTEN \"${PROJECT_BINARY_DIR}/${name}.pc\")
    include(\"${PROJECT_SOURCE_DIR}/cmake/InstallPkgConfig.cmake\")")
endfunction()
if(TARGET poolmalloc_so)
  pkgconfig_install(poolmalloc "${PROJECT_DESCRIPTION}" "-lpoolmalloc")
endif()
pkgconfig_install(poolmalloc-core "Memory pools and arenas, without malloc" "-lpoolmalloc-core -pthread")

set(PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/poolmalloc)
install(EXPORT poolmalloc-targets NAMESPACE poolmalloc:: DESTINATION ${PACKAGE_DIR})
configure_package_config_file(cmake/poolmalloc-config.cmake.in ${PROJECT_BINARY_DIR}/poolmalloc-config.cmake
  INSTALL_DESTINATION ${PACKAGE_DIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/poolmalloc-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/poolmalloc-config.cmake ${PROJECT_BINARY_DIR}/poolmalloc-config-version.cmake
  DESTINATION ${PACKAGE_DIR})

if(PROJECT_IS_TOP_LEVEL)
  add_custom_target(uninstall VERBATIM
    COMMAND ${CMAKE_COMMAND} -D MANIFEST=${PROJECT_BINARY_DIR}/install_manifest.txt -P ${PROJECT_SOURCE_DIR}/cmake/Uninstall.cmake)

  set(CPACK_GENERATOR DEB)
  set(CPACK_PACKAGE_CONTACT "The poolmalloc authors")
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
  set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
  set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
  set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
  include(CPack)
endif()
