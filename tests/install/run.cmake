# cmake -DBUILD_DIR=... -DSOURCE_DIR=... -DPYTHON=... -DGENERATOR=... -DCXX=... -P run.cmake: installs the library, then
# configures, builds and runs the project in this folder against what was installed.
set(work ${BUILD_DIR}/tests/install)
set(prefix ${work}/prefix)
file(REMOVE_RECURSE ${work})

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

run(${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${prefix})
file(GLOB leaked ${prefix}/include/mnemosyne/kernels)
if(leaked)
  message(FATAL_ERROR "kernels/ is no interface, but its headers were installed")
endif()
# Under another name, so that a path into the first place would show.
file(RENAME ${prefix} ${prefix}-moved)
run(
  ${CMAKE_COMMAND} -S ${SOURCE_DIR} -B ${work}/build -G ${GENERATOR}
  -DCMAKE_PREFIX_PATH=${prefix}-moved -DPython_EXECUTABLE=${PYTHON} -DCMAKE_CXX_COMPILER=${CXX}
  -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}
)
run(${CMAKE_COMMAND} --build ${work}/build)
run(${work}/build/consumer)
