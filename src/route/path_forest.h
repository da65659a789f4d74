// The path trees of all hosts: compressed radix trees over path bytes, in flat arrays. A node is 32
// bytes; the children of a node lie side by side, so that one memchr over their first bytes finds
// the child; a tree is laid out breadth first, so that its upper levels, which every request walks,
// share cache lines. Part of Tables; filled by the build, read-only afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace weir::route {

inline constexpr uint32_t kNoNode = UINT32_MAX;

// What a tree is built from: sorted by key, then exact before prefix, then precedence.
struct PathKey {
  std::string_view key;  // a prefix without its trailing slash (the root is ""), or an exact path
  bool exact = false;
  uint32_t route = 0;
};

struct PathNode {
  static constexpr size_t kInlineLabelBytes = 12;

  uint32_t first_child = 0;
  uint32_t parent = kNoNode;
  uint32_t candidates = 0;  // the route itself when there is one, else where its list begins
  uint16_t child_count = 0;
  uint16_t label_length = 0;
  uint16_t exact_count = 0;   // routes for exactly this path; they come first in the list
  uint16_t prefix_count = 0;  // routes for this path as a prefix
  union {
    char label[kInlineLabelBytes] = {};
    uint32_t label_offset;  // for longer labels: into PathForest::labels_
  };
};
static_assert(sizeof(PathNode) == 32);

class PathForest {
 public:
  void reserve(size_t keys) { nodes_.reserve(keys + keys / 4 + 1); }
  uint32_t add_tree(std::span<const PathKey> keys);  // the root; `keys` must not be empty
  void shrink();

  [[nodiscard]] const PathNode& node(uint32_t index) const noexcept { return nodes_[index]; }

  [[nodiscard]] std::string_view label(const PathNode& node) const noexcept {
    const char* text = node.label_length <= PathNode::kInlineLabelBytes
                           ? node.label
                           : labels_.data() + node.label_offset;
    return {text, node.label_length};
  }

  // kNoNode when no child begins with that byte. An only child is returned without looking: the
  // caller compares the label anyway.
  [[nodiscard]] uint32_t child(const PathNode& node, char byte) const noexcept {
    if (node.child_count <= 1) return node.child_count == 0 ? kNoNode : node.first_child;
    const char* first = first_bytes_.data() + node.first_child;
    const void* found = std::memchr(first, byte, node.child_count);
    if (found == nullptr) return kNoNode;
    return node.first_child + static_cast<uint32_t>(static_cast<const char*>(found) - first);
  }

  [[nodiscard]] std::span<const uint32_t> exact_routes(const PathNode& node) const noexcept {
    return {list(node), node.exact_count};
  }
  [[nodiscard]] std::span<const uint32_t> prefix_routes(const PathNode& node) const noexcept {
    return {list(node) + node.exact_count, node.prefix_count};
  }

  [[nodiscard]] size_t bytes() const noexcept {
    return nodes_.capacity() * sizeof(PathNode) + first_bytes_.capacity() + labels_.capacity() +
           candidates_.capacity() * sizeof(uint32_t);
  }

 private:
  // The keys [begin, end) all start with the path of `node`'s parent and with the node's first
  // byte.
  struct Pending {
    uint32_t node;
    uint32_t begin;
    uint32_t end;
    uint32_t depth;  // bytes of the parent's path
  };

  [[nodiscard]] const uint32_t* list(const PathNode& node) const noexcept {
    const bool single = node.exact_count + node.prefix_count <= 1;
    return single ? &node.candidates : candidates_.data() + node.candidates;
  }
  uint32_t set_candidates(std::span<const PathKey> keys, uint32_t begin, uint32_t end, size_t depth,
                          PathNode& node);
  void set_label(std::string_view text, PathNode& node);
  void add_children(std::span<const PathKey> keys, const Pending& parent, uint32_t begin,
                    size_t depth);

  std::vector<PathNode> nodes_;
  std::vector<char> first_bytes_;  // of each node's label, by node
  std::vector<char> labels_;
  std::vector<uint32_t> candidates_;
  std::vector<Pending> pending_;  // of the build
};

}  // namespace weir::route
