// A parsed TOML document, seen through borrowed handles, so that the TOML library is included in
// one source file only. Belongs to one load_config() call; handles and views die with the Document.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <weir/control/config/config.h>

namespace weir::control::config {

enum class Kind : uint8_t { kTable, kList, kString, kInteger, kFloat, kBool, kDate };

struct Member;

class Node {
 public:
  explicit Node(const void* node) noexcept : node_(node) {}

  [[nodiscard]] Kind kind() const noexcept;
  [[nodiscard]] Place place() const noexcept;
  [[nodiscard]] std::string_view text() const noexcept;  // kString; else empty
  [[nodiscard]] int64_t integer() const noexcept;        // kInteger; else 0
  [[nodiscard]] bool boolean() const noexcept;           // kBool; else false
  [[nodiscard]] size_t size() const noexcept;            // kList: items; kTable: members; else 0
  [[nodiscard]] Node item(size_t index) const noexcept;  // kList, index < size()
  [[nodiscard]] bool has(std::string_view key) const noexcept;  // kTable
  void members(std::vector<Member>& out) const;  // kTable; replaces `out`, sorted by key
  [[nodiscard]] std::vector<Member> members_in_file_order() const;  // kTable

 private:
  const void* node_;
};

struct Member {
  std::string_view key;
  Place place;  // of the key
  Node value;
};

struct SyntaxError {
  Place place;
  std::string message;
};

class Document {
 public:
  Document();
  ~Document();
  Document(const Document&) = delete;
  Document& operator=(const Document&) = delete;

  // False: `error` says where and why, and root() must not be called.
  bool parse(std::string_view text, SyntaxError& error);
  [[nodiscard]] Node root() const noexcept;

 private:
  struct Tree;
  std::unique_ptr<Tree> tree_;
};

}  // namespace weir::control::config
