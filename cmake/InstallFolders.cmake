# Where things are installed, and where what is installed finds the libraries that it needs.
include(GNUInstallDirs)

list(GET TORCH_INCLUDE_DIRS 0 torch_include_dir)
cmake_path(SET MNEMOSYNE_TORCH_LIBDIR NORMALIZE ${torch_include_dir}/../lib)
if(SKBUILD) # a wheel: the package's folder lies beside torch's
  set(CMAKE_INSTALL_LIBDIR lib)
  set(CMAKE_INSTALL_RPATH "$ORIGIN" "$ORIGIN/../lib" "$ORIGIN/../../torch/lib")
else()
  set(CMAKE_INSTALL_RPATH "$ORIGIN" "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}" ${MNEMOSYNE_TORCH_LIBDIR})
endif()
