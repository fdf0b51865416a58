# Every `ModelFamily Name() {` in src/model/families/*.cc becomes an entry of ModelFamilies(), so that a new family is
# one new file.
function(kvasir_model_families target folder)
  file(GLOB files CONFIGURE_DEPENDS ${folder}/*.cc)
  set(declarations "")
  set(entries "")
  foreach(file IN LISTS files)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    file(STRINGS ${file} lines REGEX "^ModelFamily [A-Za-z0-9]+\\(\\) {")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE "^ModelFamily ([A-Za-z0-9]+)\\(\\) {.*" "\\1" name "${line}")
      string(APPEND declarations "ModelFamily ${name}();\n")
      string(APPEND entries "      families::${name}(),\n")
    endforeach()
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/model_families.cc CONTENT
"// Made by cmake/model_families.cmake from the files of src/model/families/.
#include \"model/weight_rules.h\"

namespace kvasir {
namespace families {
@declarations@}  // namespace families

const std::vector<ModelFamily>& ModelFamilies() {
  static const std::vector<ModelFamily> all = {
@entries@  };
  return all;
}

}  // namespace kvasir
" @ONLY)
  target_sources(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/model_families.cc)
endfunction()
