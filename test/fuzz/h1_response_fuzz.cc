#include "http_targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  weir::fuzz::h1_response(bytes, size);
  return 0;
}
