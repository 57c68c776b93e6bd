# cmake --install: libraries, headers, tool, man pages, pkg-config file, CMake package. cpack: a Debian package.
include(CMakePackageConfigHelpers)

install(TARGETS poolmalloc_so poolmalloc_hardened_so poolmalloc_core EXPORT poolmalloc-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS poolmalloc_tool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES man/poolmalloc.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES man/poolmalloc.3 man/pm_pool.3 man/pm_arena.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
install(FILES man/poolmalloc.7 DESTINATION ${CMAKE_INSTALL_MANDIR}/man7)

configure_file(cmake/poolmalloc.pc.in ${CMAKE_BINARY_DIR}/poolmalloc.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/poolmalloc.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

set(PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/poolmalloc)
install(EXPORT poolmalloc-targets NAMESPACE poolmalloc:: DESTINATION ${PACKAGE_DIR})
configure_package_config_file(cmake/poolmalloc-config.cmake.in ${CMAKE_BINARY_DIR}/poolmalloc-config.cmake
  INSTALL_DESTINATION ${PACKAGE_DIR})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/poolmalloc-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/poolmalloc-config.cmake ${CMAKE_BINARY_DIR}/poolmalloc-config-version.cmake
  DESTINATION ${PACKAGE_DIR})

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "The poolmalloc authors")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_SOURCE_DIR}/LICENSE)
include(CPack)
