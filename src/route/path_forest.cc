#include "path_forest.h"

#include <algorithm>

#include <weir/base/check.h>

namespace weir::route {
namespace {

size_t common_prefix(std::string_view a, std::string_view b) noexcept {
  const auto [end, unused] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(end - a.begin());
}

}  // namespace

uint32_t PathForest::add_tree(std::span<const PathKey> keys) {
  WEIR_CHECK(!keys.empty());
  const auto root = static_cast<uint32_t>(nodes_.size());
  nodes_.emplace_back();
  first_bytes_.push_back('\0');
  pending_.clear();
  pending_.push_back({root, 0, static_cast<uint32_t>(keys.size()), 0});
  // pending_ grows while it is walked: that order is what makes the layout breadth first.
  for (size_t i = 0; i < pending_.size(); ++i) {
    const Pending item = pending_[i];
    const std::string_view first = keys[item.begin].key;
    // Sorted, so what the first and the last share, all share.
    const size_t depth = common_prefix(first, keys[item.end - 1].key);
    PathNode& node = nodes_[item.node];
    set_label(first.substr(item.depth, depth - item.depth), node);
    const uint32_t rest = set_candidates(keys, item.begin, item.end, depth, node);
    if (rest != item.end) add_children(keys, item, rest, depth);
  }
  return root;
}

void PathForest::set_label(std::string_view text, PathNode& node) {
  WEIR_CHECK(text.size() <= UINT16_MAX);
  node.label_length = static_cast<uint16_t>(text.size());
  if (text.size() <= PathNode::kInlineLabelBytes) {
    std::copy(text.begin(), text.end(), node.label);
    return;
  }
  WEIR_CHECK(labels_.size() + text.size() <= UINT32_MAX);
  node.label_offset = static_cast<uint32_t>(labels_.size());
  labels_.insert(labels_.end(), text.begin(), text.end());
}

// Takes the keys that end at this node; returns where those of its children begin.
uint32_t PathForest::set_candidates(std::span<const PathKey> keys, uint32_t begin, uint32_t end,
                                    size_t depth, PathNode& node) {
  uint32_t rest = begin;
  size_t exact = 0;
  for (; rest != end && keys[rest].key.size() == depth; ++rest) exact += keys[rest].exact ? 1 : 0;
  const size_t count = rest - begin;
  WEIR_CHECK(count <= UINT16_MAX);
  node.exact_count = static_cast<uint16_t>(exact);
  node.prefix_count = static_cast<uint16_t>(count - exact);
  if (count == 1) {
    node.candidates = keys[begin].route;
  } else if (count > 1) {
    node.candidates = static_cast<uint32_t>(candidates_.size());
    for (uint32_t i = begin; i != rest; ++i) candidates_.push_back(keys[i].route);
  }
  return rest;
}

void PathForest::add_children(std::span<const PathKey> keys, const Pending& parent, uint32_t begin,
                              size_t depth) {
  const auto first_child = static_cast<uint32_t>(nodes_.size());
  uint32_t count = 0;
  while (begin != parent.end) {
    const char byte = keys[begin].key[depth];
    uint32_t end = begin + 1;
    while (end != parent.end && keys[end].key[depth] == byte) ++end;
    pending_.push_back({first_child + count, begin, end, static_cast<uint32_t>(depth)});
    PathNode child;
    child.parent = parent.node;
    nodes_.push_back(child);
    first_bytes_.push_back(byte);
    begin = end;
    ++count;
  }
  nodes_[parent.node].first_child = first_child;
  nodes_[parent.node].child_count = static_cast<uint16_t>(count);
}

void PathForest::shrink() {
  nodes_.shrink_to_fit();
  first_bytes_.shrink_to_fit();
  labels_.shrink_to_fit();
  candidates_.shrink_to_fit();
  pending_ = {};
}

}  // namespace weir::route
