#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/intrusive_list.h>

namespace {

struct Item : weir::base::ListNode {
  explicit Item(int v) : value(v) {}
  int value;
};

// An element in two lists at once, by tagged nodes.
struct ByAge : weir::base::ListNode {};
struct ByName : weir::base::ListNode {};
struct Both : ByAge, ByName {
  int value = 0;
};

std::vector<int> values(weir::base::IntrusiveList<Item>& list) {
  std::vector<int> result;
  list.for_each([&](Item& item) { result.push_back(item.value); });
  return result;
}

}  // namespace

TEST_CASE("elements keep their order at both ends") {
  Item a(1), b(2), c(3);
  weir::base::IntrusiveList<Item> list;
  REQUIRE(list.empty());
  REQUIRE(list.pop_front() == nullptr);
  list.push_back(b);
  list.push_back(c);
  list.push_front(a);
  CHECK(values(list) == std::vector{1, 2, 3});
  CHECK(list.front().value == 1);
  CHECK(list.back().value == 3);
  CHECK(list.pop_front() == &a);
  CHECK_FALSE(a.linked());
  CHECK(values(list) == std::vector{2, 3});
  CHECK(list.pop_front() == &b);
  CHECK(list.pop_front() == &c);
  CHECK(list.empty());
}

TEST_CASE("an element leaves from anywhere, knows it, and may come back") {
  Item a(1), b(2), c(3);
  weir::base::IntrusiveList<Item> list;
  for (Item* item : {&a, &b, &c}) list.push_back(*item);
  b.unlink();
  CHECK_FALSE(b.linked());
  CHECK(values(list) == std::vector{1, 3});
  b.unlink();  // the second time is nothing
  CHECK(values(list) == std::vector{1, 3});
  list.push_back(b);
  CHECK(values(list) == std::vector{1, 3, 2});
  for (Item* item : {&a, &b, &c}) item->unlink();
  CHECK(list.empty());
}

TEST_CASE("for_each lets the visitor unlink the element it was given") {
  Item a(1), b(2), c(3), d(4);
  weir::base::IntrusiveList<Item> list;
  for (Item* item : {&a, &b, &c, &d}) list.push_back(*item);
  list.for_each([](Item& item) {
    if (item.value % 2 == 0) item.unlink();
  });
  CHECK(values(list) == std::vector{1, 3});
  list.for_each([](Item& item) { item.unlink(); });
  CHECK(list.empty());
}

TEST_CASE("one element is in two lists by two nodes") {
  Both x, y;
  x.value = 1;
  y.value = 2;
  weir::base::IntrusiveList<Both, ByAge> by_age;
  weir::base::IntrusiveList<Both, ByName> by_name;
  by_age.push_back(x);
  by_age.push_back(y);
  by_name.push_back(y);
  by_name.push_back(x);
  CHECK(by_age.front().value == 1);
  CHECK(by_name.front().value == 2);
  static_cast<ByAge&>(x).unlink();
  CHECK(by_age.front().value == 2);
  CHECK(static_cast<ByName&>(x).linked());
  CHECK(by_name.back().value == 1);
  static_cast<ByAge&>(y).unlink();
  while (by_name.pop_front() != nullptr) {
  }
}
