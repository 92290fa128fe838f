# The installed package: headers (without kernels/ and what includes them, which are no interface), library, program and the target
# mnemosyne::mnemosyne. In a wheel the prefix is the folder of the Python package.
include(CMakePackageConfigHelpers)
set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mnemosyne)

install(
  TARGETS mnemosyne
  EXPORT mnemosyne-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
)
install(
  DIRECTORY mnemosyne
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING
  PATTERN "*.h"
  PATTERN "kernels" EXCLUDE
  PATTERN "problem.h" EXCLUDE
)
install(EXPORT mnemosyne-targets NAMESPACE mnemosyne:: DESTINATION ${cmake_dir})
export(EXPORT mnemosyne-targets NAMESPACE mnemosyne:: FILE ${PROJECT_BINARY_DIR}/cmake/mnemosyne-targets.cmake)

string(REGEX MATCH "^[0-9]+\\.[0-9]+" torch_minor_version ${Torch_VERSION})
configure_package_config_file(
  cmake/mnemosyne-config.cmake.in ${PROJECT_BINARY_DIR}/cmake/mnemosyne-config.cmake
  INSTALL_DESTINATION ${cmake_dir}
)
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/cmake/mnemosyne-config-version.cmake
  COMPATIBILITY SameMinorVersion
)
configure_file(cmake/mnemosyne-torch.cmake ${PROJECT_BINARY_DIR}/cmake/mnemosyne-torch.cmake COPYONLY)
install(
  FILES
    ${PROJECT_BINARY_DIR}/cmake/mnemosyne-config.cmake
    ${PROJECT_BINARY_DIR}/cmake/mnemosyne-config-version.cmake
    ${PROJECT_BINARY_DIR}/cmake/mnemosyne-torch.cmake
  DESTINATION ${cmake_dir}
)
