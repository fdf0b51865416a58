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
  if(KVASIR_SANITIZE STREQUAL "thread")
    # ThreadSanitizer knows no fences; Asio's own order accesses that its mutexes order already.
    add_compile_definitions(BOOST_ASIO_DISABLE_FENCED_BLOCK)
  endif()
endif()

if(KVASIR_FUZZ)
  # The fuzzer is guided by the coverage of the libraries, not only of its own small target.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# kvasir_precompile(OWNER TARGET…): the targets read OWNER's precompiled headers. A file still includes what it uses:
# clang-tidy reads every one without them.
function(kvasir_precompile owner)
  foreach(target IN LISTS ARGN)
    if(TARGET ${owner})
      target_precompile_headers(${target} REUSE_FROM ${owner})
      # With this ccache knows what such a file holds.
      target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
    endif()
  endforeach()
endfunction()

# kvasir_precompiled(OWNER HEADER…): precompiles headers for targets that depend on the layer io.
function(kvasir_precompiled owner)
  if(KVASIR_PRECOMPILE AND NOT KVASIR_KERNELS_ONLY)
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/${owner}.cc CONTENT "// Compiled with the headers of ${owner}.\n")
    add_library(${owner} OBJECT ${CMAKE_BINARY_DIR}/${owner}.cc)
    target_link_libraries(${owner} PRIVATE kvasir_options fmt::fmt spdlog::spdlog Boost::json Threads::Threads)
    target_precompile_headers(${owner} PRIVATE <algorithm> <chrono> <filesystem> <functional> <map> <memory> <optional>
                              <random> <string> <thread> <vector> <fmt/format.h> <boost/json.hpp> ${ARGN})
    target_compile_options(${owner} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
  endif()
endfunction()

# kvasir_layer(NAME [DEPS targets…] [TEST_DEPS targets…] [SHARDS N]) makes the library kvasir_NAME of a folder's *.cc and,
# from its *_test.cc, the test program test_NAME.
function(kvasir_layer name)
  cmake_parse_arguments(ARG "" "SHARDS" "DEPS;TEST_DEPS" ${ARGN})
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
    kvasir_test(test_${name} SOURCES ${tests} DEPS kvasir_${name} ${ARG_TEST_DEPS} SHARDS ${ARG_SHARDS})
  endif()
endfunction()

# kvasir_test_paths(): the library that defines what base/test_paths.h declares.
function(kvasir_test_paths)
  if(NOT TARGET kvasir_test_paths)
    set(file ${CMAKE_BINARY_DIR}/test_paths.cc)
    file(CONFIGURE OUTPUT ${file} CONTENT [[#include "base/test_paths.h"

const char* const kvasir::kFixtures = "@PROJECT_SOURCE_DIR@/tests/fixtures";
const char* const kvasir::kSourceTree = "@PROJECT_SOURCE_DIR@";
]] @ONLY)
    add_library(kvasir_test_paths STATIC ${file})
    target_link_libraries(kvasir_test_paths PRIVATE kvasir_options)
  endif()
endfunction()

# kvasir_test(NAME SOURCES files… DEPS targets… [SHARDS N]): a GoogleTest program, one ctest entry or, for one that
# takes long, N that may run side by side.
# Tests find committed fixtures by base/test_paths.h.
function(kvasir_test name)
  cmake_parse_arguments(ARG "" "SHARDS" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  kvasir_precompile(precompiled_test ${name})
  # A test's own code is run once or twice: optimising it takes longer than it saves.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  if(TARGET Boost::json)
    target_link_libraries(${name} PRIVATE Boost::json)  # as precompiled_test has it
  endif()
  kvasir_test_paths()
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} kvasir_test_paths kvasir_options GTest::gmock GTest::gtest_main)
  set(timeout 900)
  if(CMAKE_CROSSCOMPILING)
    set(timeout 7200)  # an emulated processor takes its time
  elseif(KVASIR_SANITIZE)
    set(timeout 2700)
  endif()
  if(NOT ARG_SHARDS)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout})
    return()
  endif()
  math(EXPR last "${ARG_SHARDS} - 1")
  foreach(shard RANGE ${last})
    # Its own report: the programs would choose the same name.
    set(report ${CMAKE_BINARY_DIR}/test-results/${name}_${shard}.xml)
    add_test(NAME ${name}_${shard} COMMAND ${name} --gtest_output=xml:${report})
    set_tests_properties(${name}_${shard} PROPERTIES TIMEOUT ${timeout} ENVIRONMENT
                         "GTEST_TOTAL_SHARDS=${ARG_SHARDS};GTEST_SHARD_INDEX=${shard}")
  endforeach()
endfunction()
