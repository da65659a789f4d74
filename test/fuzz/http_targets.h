// What the fuzzers of the http room check, as plain functions: each is the body of one libFuzzer
// program (NAME_fuzz.cc) and is run over test/fuzz/corpus/NAME by the unit tests. A broken property
// ends the process.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weir::fuzz {

void h1_request(const uint8_t* bytes, size_t size);
void h1_response(const uint8_t* bytes, size_t size);
void h1_chunked(const uint8_t* bytes, size_t size);
void h1_rewrite(const uint8_t* bytes, size_t size);
void uri(const uint8_t* bytes, size_t size);

}  // namespace weir::fuzz
