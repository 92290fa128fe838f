# mnemosyne_add_suites(<target> <file>...): one ctest test per GoogleTest suite of the files.
#
# A test is a process, and a process takes a third of a second to load torch: longer than most suites run.
function(mnemosyne_add_suites target)
  set(suites "")
  foreach(file ${ARGN})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    file(STRINGS ${file} lines REGEX "^TEST(_F|_P)?\\(")
    foreach(line ${lines})
      string(REGEX REPLACE "^TEST[_FP]*\\(([A-Za-z0-9]+).*" "\\1" suite "${line}")
      list(APPEND suites ${suite})
    endforeach()
  endforeach()
  list(REMOVE_DUPLICATES suites)
  foreach(suite ${suites})
    # The second form is that of a suite with parameters: Instantiation/Suite.Test/0.
    add_test(NAME ${suite} COMMAND ${target} "--gtest_filter=${suite}.*:*/${suite}.*")
    # A filter that selects nothing passes. Tests of threads set their number; the others run side by side, and two
    # processes of two threads, which spin while they wait, take twenty times as long on two cores.
    set_tests_properties(
      ${suite}
      PROPERTIES FAIL_REGULAR_EXPRESSION "Running 0 tests" ENVIRONMENT OMP_NUM_THREADS=1
    )
    if(suite MATCHES "Gpu")
      set_tests_properties(${suite} PROPERTIES LABELS gpu)
    endif()
  endforeach()
endfunction()
