# mnemosyne_embed(<target> <name>=<file>...): compiles the files into the target, found at run time by
# mnemosyne/core/embedded.h.
function(mnemosyne_embed target)
  set(pairs ${ARGN})
  list(SORT pairs)
  set(embedded_blobs "")
  set(embedded_rows "")
  set(files "")
  set(index 0)
  foreach(pair IN LISTS pairs)
    string(FIND ${pair} "=" split)
    string(SUBSTRING ${pair} 0 ${split} name)
    math(EXPR split "${split} + 1")
    string(SUBSTRING ${pair} ${split} -1 file)
    set(symbol mnemosyne_embedded_${index})
    string(APPEND embedded_blobs "
asm(R\"(
  .pushsection .rodata
  .balign 64
  .global ${symbol}, ${symbol}_end
  .hidden ${symbol}, ${symbol}_end
${symbol}:
  .incbin \"${file}\"
${symbol}_end:
  .byte 0
  .popsection
)\");
extern \"C\" __attribute__((visibility(\"hidden\"))) const char ${symbol}[], ${symbol}_end[];
")
    # In the source, so that a compiler cache, which does not see through .incbin, knows of new content.
    file(SHA256 ${file} hash)
    set_property(DIRECTORY ${PROJECT_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    string(APPEND embedded_blobs "// ${hash}\n")
    string(APPEND embedded_rows "    {\"${name}\", ${symbol}, ${symbol}_end},\n")
    list(APPEND files ${file})
    math(EXPR index "${index} + 1")
  endforeach()

  set(source ${PROJECT_BINARY_DIR}/embedded.cpp)
  configure_file(${PROJECT_SOURCE_DIR}/mnemosyne/core/embedded.cpp.in ${source} @ONLY)
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS "${files}")
  target_sources(${target} PRIVATE ${source})
endfunction()

# The handwritten digits inside the scikit-learn wheel, without importing it (which takes seconds).
function(mnemosyne_find_digits result)
  if(MNEMOSYNE_DIGITS_FILE)
    if(NOT EXISTS ${MNEMOSYNE_DIGITS_FILE})
      message(FATAL_ERROR "MNEMOSYNE_DIGITS_FILE: no such file: ${MNEMOSYNE_DIGITS_FILE}")
    endif()
    file(REAL_PATH ${MNEMOSYNE_DIGITS_FILE} path)
  else()
    execute_process(
      COMMAND ${Python_EXECUTABLE} -c "import importlib.util, os
spec = importlib.util.find_spec('sklearn')
print(os.path.join(os.path.dirname(spec.origin), 'datasets', 'data', 'digits.csv.gz') if spec else '')"
      OUTPUT_VARIABLE path
      OUTPUT_STRIP_TRAILING_WHITESPACE
      ERROR_QUIET
    )
    if(NOT EXISTS "${path}")
      message(STATUS "scikit-learn not found in ${Python_EXECUTABLE}: building without its handwritten digits")
      set(path "")
    endif()
  endif()
  set(${result} ${path} PARENT_SCOPE)
endfunction()

file(GLOB weights CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/weights/*.safetensors)
set(embedded "")
foreach(file IN LISTS weights)
  cmake_path(GET file FILENAME name)
  list(APPEND embedded ${name}=${file})
endforeach()
mnemosyne_find_digits(digits)
if(digits)
  list(APPEND embedded digits.csv.gz=${digits})
endif()
mnemosyne_embed(mnemosyne ${embedded})
