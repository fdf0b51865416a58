# Helpers for kvasir's own targets.

# Warnings, sanitizers and include path that every kvasir target shares.
add_library(kvasir_options INTERFACE)
target_compile_options(kvasir_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
                                                -Wno-missing-field-initializers -Werror)
# Products and sums are fused only where the code says so: the same numbers from every compiler and processor.
target_compile_options(kvasir_options INTERFACE -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12's flow analysis reports these for correct std::optional, std::string and intrinsics code.
  target_compile_options(kvasir_options INTERFACE -Wno-maybe-uninitialized -Wno-restrict -Wno-stringop-overflow
                                                  -Wno-array-bounds -Wno-dangling-pointer)
else()
  # libstdc++ 12's stable_sort calls a function it deprecates; GCC still reports deprecated calls of ours.
  target_compile_options(kvasir_options INTERFACE -Wthread-safety -Wno-deprecated-declarations)
endif()
target_include_directories(kvasir_options INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
if(KVASIR_SANITIZE)
  add_compile_options(-fsanitize=${KVASIR_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${KVASIR_SANITIZE})
endif()

if(KVASIR_FUZZ)
  # The fuzzer is guided by the coverage of the libraries, not only of its own small target.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# kvasir_layer(NAME [DEPS targets…] [SOURCES files…]) makes the library kvasir_NAME of a folder's *.cc (with
# subfolders given by SOURCES or found here) and, from its *_test.cc, the test program test_NAME.
function(kvasir_layer name)
  cmake_parse_arguments(ARG "" "" "DEPS;TEST_DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  if(sources)
    add_library(kvasir_${name} STATIC ${sources})
    target_link_libraries(kvasir_${name} PUBLIC ${ARG_DEPS} PRIVATE $<BUILD_INTERFACE:kvasir_options>)
    target_include_directories(kvasir_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  else()
    add_library(kvasir_${name} INTERFACE)
    target_link_libraries(kvasir_${name} INTERFACE ${ARG_DEPS})
  endif()
  if(KVASIR_TESTS AND tests)
    kvasir_test(test_${name} SOURCES ${tests} DEPS kvasir_${name} ${ARG_TEST_DEPS})
  endif()
endfunction()

# kvasir_test(NAME SOURCES files… DEPS targets…): a GoogleTest program, one ctest entry per test case.
# Tests read committed fixtures from KVASIR_FIXTURES (tests/fixtures of the source tree).
function(kvasir_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} kvasir_options GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE KVASIR_FIXTURES="${PROJECT_SOURCE_DIR}/tests/fixtures"
                                             KVASIR_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  set(timeout 900)
  if(CMAKE_CROSSCOMPILING)
    set(timeout 7200)  # an emulated processor takes its time
  elseif(KVASIR_SANITIZE)
    set(timeout 2700)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout})
endfunction()
