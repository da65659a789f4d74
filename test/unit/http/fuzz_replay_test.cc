// Runs what the fuzzers check over their stored inputs, and over the bytes of test/corpus.
#include <catch2/catch_test_macros.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "corpus.h"
#include "fuzz/http_targets.h"

namespace {

using Target = void (*)(const uint8_t*, size_t);

void run(Target target, const std::string& bytes) {
  target(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

void replay(const char* name, Target target) {
  const auto folder = std::filesystem::path(WEIR_TEST_ROOT) / "fuzz" / "corpus" / name;
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    REQUIRE(file.good());
    INFO(entry.path());
    run(target, {std::istreambuf_iterator<char>(file), {}});
    ++files;
  }
  CHECK(files >= 5);
}

}  // namespace

// A broken property aborts; the file's name is in the order of the folder.
TEST_CASE("stored inputs of the fuzzers hold their properties", "[fuzz]") {
  replay("h1_request", weir::fuzz::h1_request);
  replay("h1_response", weir::fuzz::h1_response);
  replay("h1_chunked", weir::fuzz::h1_chunked);
  replay("h1_rewrite", weir::fuzz::h1_rewrite);
  replay("uri", weir::fuzz::uri);
}

TEST_CASE("the corpus holds the fuzzers' properties", "[fuzz]") {
  for (const auto& c : weir::test::read_corpus("h1_requests.txt")) {
    run(weir::fuzz::h1_request, c.bytes);
    run(weir::fuzz::h1_rewrite, c.bytes);
    const size_t head_end = c.bytes.find("\r\n\r\n");
    if (head_end != std::string::npos) run(weir::fuzz::h1_chunked, c.bytes.substr(head_end + 4));
  }
  for (const auto& c : weir::test::read_corpus("h1_responses.txt")) {
    for (char method = 0; method < 10; ++method) run(weir::fuzz::h1_response, method + c.bytes);
  }
}
