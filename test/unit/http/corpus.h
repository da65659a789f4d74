// Reads test/corpus/*.txt (the format is described at the top of h1_requests.txt). Throws on a file
// that breaks its own rules, so that a misspelt key cannot make a case pass unseen.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace weir::test {

struct CorpusCase {
  int line = 0;
  std::string id;
  std::string why;
  std::string bytes;
  std::string expect;
  std::string level = "head";
  std::string request = "GET";
  std::string origin;
  std::string body;
  std::string then;
  int status = 0;
  bool parser_only = false;
  bool reuse = true;
  std::vector<std::pair<std::string, std::string>> present;
  std::vector<std::string> absent;
  std::vector<std::pair<std::string, std::string>> trailer;
  std::vector<std::string> no_trailer;
};

// `name` is a file of test/corpus.
std::vector<CorpusCase> read_corpus(const std::string& name);

// The escapes of the format.
std::string unescape(const std::string& text);

}  // namespace weir::test
