#include "corpus.h"

#include <fstream>
#include <set>
#include <stdexcept>

namespace weir::test {

namespace {

std::pair<std::string, std::string> split_field(const std::string& text) {
  const size_t colon = text.find(": ");
  if (colon == std::string::npos) throw std::runtime_error("not 'name: value': " + text);
  const std::string value = text.substr(colon + 2);
  return {text.substr(0, colon), value == " " ? "" : value};
}

void set(CorpusCase& c, const std::string& key, const std::string& value) {
  if (key == "id") {
    c.id = value;
  } else if (key == "why") {
    c.why = value;
  } else if (key == "bytes") {
    c.bytes += unescape(value);
  } else if (key == "expect") {
    c.expect = value;
  } else if (key == "level") {
    c.level = value;
  } else if (key == "request") {
    c.request = value;
  } else if (key == "origin") {
    c.origin = unescape(value);
  } else if (key == "body") {
    c.body = unescape(value);
  } else if (key == "then") {
    c.then = value;
  } else if (key == "status") {
    c.status = std::stoi(value);
  } else if (key == "scope" && value == "parser") {
    c.parser_only = true;
  } else if (key == "reuse" && value == "no") {
    c.reuse = false;
  } else if (key == "present") {
    c.present.push_back(split_field(unescape(value)));
  } else if (key == "absent") {
    c.absent.push_back(value);
  } else if (key == "trailer") {
    c.trailer.push_back(split_field(unescape(value)));
  } else if (key == "no-trailer") {
    c.no_trailer.push_back(value);
  } else {
    throw std::runtime_error("unknown key or value: " + key + ": " + value);
  }
}

void finish(CorpusCase& c, std::vector<CorpusCase>& cases, std::set<std::string>& ids) {
  if (c.line == 0) return;
  if (c.id.empty() || c.why.empty() || c.expect.empty()) {
    throw std::runtime_error("incomplete case at line " + std::to_string(c.line));
  }
  if (!ids.insert(c.id).second) throw std::runtime_error("id used twice: " + c.id);
  cases.push_back(std::move(c));
  c = CorpusCase{};
}

}  // namespace

std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    switch (text.at(++i)) {
      case 'r': out += '\r'; break;
      case 'n': out += '\n'; break;
      case 't': out += '\t'; break;
      case '0': out += '\0'; break;
      case 's': out += ' '; break;
      case '\\': out += '\\'; break;
      case 'x':
        out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
        i += 2;
        break;
      case 'R': {
        const size_t comma = text.find(',', i);
        const size_t end = text.find('}', i);
        if (text.at(i + 1) != '{' || comma == std::string::npos || end == std::string::npos) {
          throw std::runtime_error("bad repetition: " + text);
        }
        const std::string piece = unescape(text.substr(comma + 1, end - comma - 1));
        for (int n = std::stoi(text.substr(i + 2, comma - i - 2)); n > 0; --n) out += piece;
        i = end;
        break;
      }
      default: throw std::runtime_error("unknown escape: " + text);
    }
  }
  return out;
}

std::vector<CorpusCase> read_corpus(const std::string& name) {
  const std::string path = std::string(WEIR_TEST_ROOT) + "/corpus/" + name;
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<CorpusCase> cases;
  std::set<std::string> ids;
  CorpusCase current;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty()) {
      finish(current, cases, ids);
      continue;
    }
    if (line[0] == '#') continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) {
      throw std::runtime_error(path + ": no key at line " + std::to_string(number));
    }
    if (current.line == 0) current.line = number;
    set(current, line.substr(0, colon), colon + 2 <= line.size() ? line.substr(colon + 2) : "");
  }
  finish(current, cases, ids);
  return cases;
}

}  // namespace weir::test
