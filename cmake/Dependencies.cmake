# Where each dependency comes from: what is installed, otherwise a download.
include(FetchContent)

set(Python_FIND_VIRTUALENV FIRST)
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter OPTIONAL_COMPONENTS Development.Module)
include(mnemosyne-torch)

# mnemosyne_dependency(<package> <version> <target> <Debian package> <url> <SHA256>)
macro(mnemosyne_dependency package version target debian_package url sha256)
  find_package(${package} ${version} QUIET)
  if(NOT TARGET ${target})
    if(NOT MNEMOSYNE_FETCH_DEPS)
      message(FATAL_ERROR "${package} >= ${version} not found (Debian, Ubuntu: apt-get install ${debian_package})")
    endif()
    message(STATUS "${package} not found: downloading it (Debian, Ubuntu: apt-get install ${debian_package})")
    mnemosyne_download(${package} ${debian_package} ${url} ${sha256} archive)
    FetchContent_Declare(
      ${package}
      URL ${archive}
      URL_HASH SHA256=${sha256}
      DOWNLOAD_EXTRACT_TIMESTAMP ON
      SYSTEM
    )
    FetchContent_MakeAvailable(${package})
  endif()
endmacro()

# One try and one line: FetchContent's own download takes minutes of retries to say that there is no network.
function(mnemosyne_download package debian_package url sha256 result)
  cmake_path(GET url FILENAME name)
  set(archive ${PROJECT_BINARY_DIR}/_deps/${package}-${name})
  set(${result} ${archive} PARENT_SCOPE)
  string(TOUPPER FETCHCONTENT_SOURCE_DIR_${package} local_source)
  if(EXISTS ${archive} OR ${local_source})
    return()
  endif()
  file(DOWNLOAD ${url} ${archive}.part TIMEOUT 60 INACTIVITY_TIMEOUT 20 STATUS status)
  list(POP_FRONT status code reason)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR
      "${package} is neither installed (Debian, Ubuntu: apt-get install ${debian_package}) nor to be had from ${url}: ${reason}"
    )
  endif()
  file(RENAME ${archive}.part ${archive})
endfunction()

set(JSON_BuildTests OFF)
set(INSTALL_GTEST OFF)
set(SKIP_INSTALL_ALL ON) # zlib
set(ZLIB_BUILD_EXAMPLES OFF)

mnemosyne_dependency(
  nlohmann_json 3.10 nlohmann_json::nlohmann_json nlohmann-json3-dev
  https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
  d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d
)
mnemosyne_dependency(
  ZLIB 1.2 ZLIB::ZLIB zlib1g-dev
  https://github.com/madler/zlib/releases/download/v1.3.1/zlib-1.3.1.tar.gz
  9a93b2b7dfdac77ceba5a558a580e74667dd6fede4585b91eefb60f03b72df23
)
if(NOT TARGET ZLIB::ZLIB)
  target_include_directories(zlibstatic SYSTEM INTERFACE ${zlib_SOURCE_DIR} ${zlib_BINARY_DIR})
  add_library(ZLIB::ZLIB ALIAS zlibstatic)
endif()
# Optional: without it .xz files are refused.
find_package(LibLZMA QUIET)
if(NOT TARGET LibLZMA::LibLZMA)
  message(STATUS "liblzma not found: building without .xz files (Debian, Ubuntu: apt-get install liblzma-dev)")
endif()
# Optional: without them folders of PNG or JPEG images are refused.
find_package(PNG 1.6 QUIET)
if(NOT TARGET PNG::PNG)
  message(STATUS "libpng not found: building without PNG images (Debian, Ubuntu: apt-get install libpng-dev)")
endif()
find_package(JPEG QUIET)
if(NOT TARGET JPEG::JPEG)
  message(STATUS "libjpeg not found: building without JPEG images (Debian, Ubuntu: apt-get install libjpeg-dev)")
endif()
if(MNEMOSYNE_BUILD_CLI)
  mnemosyne_dependency(
    CLI11 2.1 CLI11::CLI11 libcli11-dev
    https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.4.1.tar.gz
    73b7ec52261ce8fe980a29df6b4ceb66243bb0b779451dbd3d014cfec9fdbb58
  )
endif()
if(MNEMOSYNE_BUILD_TESTS)
  mnemosyne_dependency(
    GTest 1.11 GTest::gtest_main libgtest-dev
    https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz
    8ad598c73ad796e0d8280b082cebd82a630d73e73cd3c70057938a6501bba5d7
  )
endif()
