# Warnings of our own code, and sanitizers for all of it. Headers of torch and of the other dependencies
# are system headers: they come from imported targets.
add_library(mnemosyne_warnings INTERFACE)
target_compile_options(
  mnemosyne_warnings
  INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall>
    $<$<COMPILE_LANGUAGE:CXX>:-Wextra>
    # False alarms of g++ 12 in std::string's operator+ (GCC PR105651).
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${MNEMOSYNE_WERROR}>>:-Werror>
)
if(MNEMOSYNE_SANITIZE)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${MNEMOSYNE_SANITIZE}> $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
  add_link_options(-fsanitize=${MNEMOSYNE_SANITIZE})
endif()
