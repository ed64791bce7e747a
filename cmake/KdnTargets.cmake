# How every library, test and program of the project is compiled.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Two checkouts in different directories share their objects: ccache makes the
  # paths below its base directory relative. Debug information may then name the
  # directory of the other checkout.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
    "CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}" CCACHE_NOHASHDIR=true "${CCACHE_PROGRAM}")
endif()

add_library(kdn_flags INTERFACE)
target_include_directories(kdn_flags INTERFACE "${CMAKE_SOURCE_DIR}")
target_compile_options(kdn_flags INTERFACE -Wall -Wextra -Werror)
if(KDN_SANITIZE)
  target_compile_options(kdn_flags INTERFACE
    -fsanitize=address,undefined -fno-omit-frame-pointer
    -fno-sanitize-recover=undefined)
  target_link_options(kdn_flags INTERFACE -fsanitize=address,undefined)
endif()

# Three checks of UBSan take half the time that a file of templates compiles, so
# what links CAF or Cap'n Proto links this after kdn_flags. All other code keeps
# every check: the codec, the storage, the model and the configuration with their
# parsers. A null that is read still ends in AddressSanitizer. CAF 0.17.6 could not
# pass the check of null: it builds its messages by binding references to null in
# its own templates (init_fun_factory.hpp) and never reads them.
add_library(kdn_fewer_checks INTERFACE)
if(KDN_SANITIZE)
  target_compile_options(kdn_fewer_checks INTERFACE
    -fno-sanitize=null,alignment,vptr)
endif()

if(KDN_TSAN)
  target_compile_options(kdn_flags INTERFACE -fsanitize=thread)
  target_link_options(kdn_flags INTERFACE -fsanitize=thread)
endif()

# kdn_library(name SRCS a.cc b.cc DEPS kv absl::status): the library kdn_<name>,
# alias kdn::<name>.
function(kdn_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(kdn_${name} STATIC ${ARG_SRCS})
  add_library(kdn::${name} ALIAS kdn_${name})
  target_link_libraries(kdn_${name} PUBLIC kdn_flags ${ARG_DEPS})
endfunction()

# Every test that ThreadSanitizer runs.
add_custom_target(thread_tests)

# kdn_test(storage_arena_test SRCS storage/arena_test.cc DEPS kdn::storage):
# a GoogleTest program under ctest. LABELS and TIMEOUT (seconds) are optional.
# THREADS: ThreadSanitizer runs it too (scripts/tsan), which needs it free of CAF.
# MAY_SKIP: a GoogleTest filter of the tests that not every machine can run. They
# are a ctest test of their own, so that ctest says when they were skipped; a
# skip beside others would hide a failure of theirs.
# ISAS scalar avx2: instead of one ctest test there is one for each instruction
# set, <name>@<isa>, which runs with KDN_ISA naming it. A program that exits with
# 77 is skipped: the CPU lacks the instructions.
function(kdn_test name)
  cmake_parse_arguments(ARG "THREADS" "TIMEOUT;MAY_SKIP" "SRCS;DEPS;LABELS;ISAS"
    ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_SRCS})
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  target_link_libraries(${name} PRIVATE kdn_flags ${ARG_DEPS}
    GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE
    KDN_SOURCE_DIR="${CMAKE_SOURCE_DIR}" KDN_BINARY_DIR="${CMAKE_BINARY_DIR}")
  if(KDN_TSAN)
    target_sources(${name} PRIVATE
      "${CMAKE_SOURCE_DIR}/tests/tsan/absl_synchronization.cc")
    target_link_libraries(${name} PRIVATE ${CMAKE_DL_LIBS})
  endif()
  if(ARG_THREADS)
    list(APPEND ARG_LABELS threads)
    add_dependencies(thread_tests ${name})
  endif()
  set(tests ${name})
  if(ARG_MAY_SKIP)
    list(APPEND tests ${name}_may_skip)
    add_test(NAME ${name}_may_skip
      COMMAND ${name} "--gtest_filter=${ARG_MAY_SKIP}")
    set_tests_properties(${name}_may_skip PROPERTIES
      SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\]")
    add_test(NAME ${name} COMMAND ${name} "--gtest_filter=-${ARG_MAY_SKIP}")
  elseif(ARG_ISAS)
    set(tests)
    foreach(isa ${ARG_ISAS})
      list(APPEND tests ${name}@${isa})
      add_test(NAME ${name}@${isa} COMMAND ${name})
      set_tests_properties(${name}@${isa} PROPERTIES
        ENVIRONMENT "KDN_ISA=${isa}" SKIP_RETURN_CODE 77)
    endforeach()
  else()
    add_test(NAME ${name} COMMAND ${name})
  endif()
  set_tests_properties(${tests} PROPERTIES TIMEOUT ${ARG_TIMEOUT}
    LABELS "${ARG_LABELS}")
endfunction()
