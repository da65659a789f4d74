// A doubly linked list whose links are base-class fields of the elements: no allocation, O(1)
// unlink from the middle, an element knows whether it is in a list. Not owning. One thread.
#pragma once

#include <weir/base/check.h>

namespace weir::base {

struct ListNode {
  ListNode* previous = nullptr;
  ListNode* next = nullptr;

  ListNode() noexcept = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { WEIR_DCHECK(!linked()); }

  [[nodiscard]] bool linked() const noexcept { return next != nullptr; }
  void unlink() noexcept {
    if (next == nullptr) return;
    previous->next = next;
    next->previous = previous;
    previous = next = nullptr;
  }
};

// T derives (publicly, possibly via a tag) from Node, which derives from ListNode.
template <class T, class Node = ListNode>
class IntrusiveList {
 public:
  IntrusiveList() noexcept { head_.previous = head_.next = &head_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() {
    WEIR_DCHECK(empty());
    head_.previous = head_.next = nullptr;
  }

  [[nodiscard]] bool empty() const noexcept { return head_.next == &head_; }
  T& front() noexcept { return item(head_.next); }
  T& back() noexcept { return item(head_.previous); }
  void push_back(T& element) noexcept { insert(head_.previous, &head_, element); }
  void push_front(T& element) noexcept { insert(&head_, head_.next, element); }
  T* pop_front() noexcept {
    if (empty()) return nullptr;
    T& element = front();
    static_cast<Node&>(element).unlink();
    return &element;
  }
  // Visits each element; the visitor may unlink the element it is given, no other.
  template <class Visitor>
  void for_each(Visitor&& visit) {
    for (ListNode* node = head_.next; node != &head_;) {
      ListNode* following = node->next;
      visit(item(node));
      node = following;
    }
  }

 private:
  static T& item(ListNode* node) noexcept { return static_cast<T&>(static_cast<Node&>(*node)); }
  static void insert(ListNode* before, ListNode* after, T& element) noexcept {
    ListNode& node = static_cast<Node&>(element);
    WEIR_DCHECK(!node.linked());
    node.previous = before;
    node.next = after;
    before->next = &node;
    after->previous = &node;
  }
  ListNode head_;
};

}  // namespace weir::base
