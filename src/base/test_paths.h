// Where tests find what is committed. The build defines these in one small file of its own, so that no other object
// depends on where the tree lies, and ccache knows it again in another checkout.
#pragma once

namespace kvasir {

extern const char* const kFixtures;    // the folder tests/fixtures
extern const char* const kSourceTree;  // the folder of this project

}  // namespace kvasir
