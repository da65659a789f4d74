#include <weir/files/etag.h>

#include <catch2/catch_test_macros.hpp>

#include <set>
#include <string>

#include <weir/base/prng.h>

namespace weir::files {

namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kThen = 1785000000 * kSecond + 123456789;

FileStamp stamp_of(int64_t modified_ns, uint64_t size) {
  FileStamp stamp;
  stamp.modified_ns = modified_ns;
  stamp.changed_ns = modified_ns + 5;
  stamp.size = size;
  stamp.inode = 42;
  return stamp;
}

std::string tag(const FileStamp& stamp, Coding coding = Coding::kIdentity,
                TagSource source = TagSource::kModified) {
  return std::string(make_entity_tag(stamp, coding, source).view());
}

bool is_entity_tag(std::string_view text) {
  if (text.size() < 2 || text.front() != '"' || text.back() != '"') return false;
  for (char c : text.substr(1, text.size() - 2)) {
    if (c <= 0x20 || c == '"' || c >= 0x7f) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a tag is the modification time in nanoseconds and the size") {
  CHECK(tag(stamp_of(0x1234abcd, 0xff)) == "\"1234abcd-ff\"");
  CHECK(tag(stamp_of(kThen, 0)) == "\"18c5980af36e4d15-0\"");
  CHECK(tag(stamp_of(-1, UINT64_MAX)) == "\"ffffffffffffffff-ffffffffffffffff\"");
}

TEST_CASE("a default tag is none") {
  CHECK(EntityTag().empty());
  CHECK(EntityTag().view().empty());
  CHECK_FALSE(make_entity_tag(stamp_of(kThen, 1)).empty());
}

TEST_CASE("tags agree between machines, unless asked otherwise") {
  FileStamp here = stamp_of(kThen, 100);
  FileStamp there = here;
  there.inode = 77;
  there.changed_ns += kSecond;
  CHECK(tag(here) == tag(there));
  CHECK(tag(here, Coding::kIdentity, TagSource::kMachine) !=
        tag(there, Coding::kIdentity, TagSource::kMachine));
  there.inode = here.inode;
  CHECK(tag(here, Coding::kIdentity, TagSource::kMachine) !=
        tag(there, Coding::kIdentity, TagSource::kMachine));
}

TEST_CASE("whatever changes the file changes the tag") {
  const FileStamp stamp = stamp_of(kThen, 100);
  CHECK(tag(stamp) != tag(stamp_of(kThen + 1, 100)));
  CHECK(tag(stamp) != tag(stamp_of(kThen, 101)));
  std::set<std::string> tags{tag(stamp)};
  for (Coding coding : kCodings) tags.insert(tag(stamp, coding));
  CHECK(tags.size() == 4);
  CHECK(tag(stamp, Coding::kBrotli).ends_with("-br\""));
}

TEST_CASE("constant times say nothing") {
  for (int64_t seconds : {int64_t{0}, int64_t{1}, int64_t{315532800}}) {
    FileStamp before = stamp_of(seconds * kSecond, 100);
    FileStamp after = before;
    after.changed_ns += 3600 * kSecond;  // another version with the same time and size
    CHECK_FALSE(has_real_time(before));
    CHECK(tag(before) != tag(after));
    CHECK_FALSE(last_modified_to_send(before, kThen).has_value());
  }
  CHECK(has_real_time(stamp_of(kThen, 0)));
  CHECK(has_real_time(stamp_of(2 * kSecond, 0)));
  CHECK(has_real_time(stamp_of(kSecond + 1, 0)));
  CHECK(has_real_time(stamp_of(-kSecond, 0)));
}

TEST_CASE("a file that was just written is not settled") {
  const FileStamp fine = stamp_of(kThen, 1);
  CHECK_FALSE(is_settled(fine, kThen));
  CHECK_FALSE(is_settled(fine, kThen + 49 * kMillisecond));
  CHECK(is_settled(fine, kThen + 50 * kMillisecond));
  // A clock that is a little behind the file system's.
  CHECK_FALSE(is_settled(fine, kThen - kMillisecond));
  CHECK_FALSE(is_settled(fine, kThen - 2 * kSecond));
  // A time in the future would go back to now at the next write.
  CHECK(is_settled(fine, kThen - 2 * kSecond - 1));
  CHECK(is_settled(stamp_of(INT64_MAX - 5, 1), INT64_MIN));
  CHECK(is_settled(stamp_of(INT64_MIN, 1), INT64_MAX));
}

TEST_CASE("whole seconds may be all that the file system has") {
  const int64_t second = 1785000000 * kSecond;
  CHECK_FALSE(is_settled(stamp_of(second, 1), second + 50 * kMillisecond));
  CHECK_FALSE(is_settled(stamp_of(second, 1), second + 2 * kSecond - 1));
  CHECK(is_settled(stamp_of(second, 1), second + 2 * kSecond));
}

TEST_CASE("with the change time in the tag, that has to be old") {
  FileStamp stamp = stamp_of(kThen - 3600 * kSecond, 1);  // times kept by cp -p
  stamp.changed_ns = kThen;
  CHECK(is_settled(stamp, kThen + 1));
  CHECK_FALSE(is_settled(stamp, kThen + 1, TagSource::kMachine));
  CHECK(is_settled(stamp, kThen + 50 * kMillisecond, TagSource::kMachine));
  stamp.modified_ns = kSecond;  // no real time: the change time is in the tag in any case
  CHECK_FALSE(is_settled(stamp, kThen + 1));
}

TEST_CASE("Last-Modified is sent from the next second on") {
  const int64_t second = 1785000000;
  const FileStamp stamp = stamp_of(second * kSecond + 999'999'999, 1);
  CHECK_FALSE(last_modified_to_send(stamp, second * kSecond + 999'999'999).has_value());
  CHECK(last_modified_to_send(stamp, (second + 1) * kSecond) == second);
  CHECK(last_modified_to_send(stamp, (second + 1000) * kSecond) == second);
  // Never a date in the future.
  CHECK_FALSE(last_modified_to_send(stamp, (second - 10) * kSecond).has_value());
  // Before 1970 seconds are rounded down as well.
  CHECK(last_modified_to_send(stamp_of(-1, 1), 0) == -1);
  CHECK(last_modified_to_send(stamp_of(-kSecond, 1), 0) == -1);
  CHECK(last_modified_to_send(stamp_of(-kSecond - 1, 1), 0) == -2);
}

TEST_CASE("all tags are well-formed and fit") {
  base::Prng prng(9110);
  for (int i = 0; i < 20000; ++i) {
    FileStamp stamp;
    stamp.modified_ns = static_cast<int64_t>(prng.next());
    stamp.changed_ns = static_cast<int64_t>(prng.next());
    stamp.size = prng.next();
    stamp.inode = prng.next();
    for (Coding coding : {Coding::kBrotli, Coding::kZstd, Coding::kGzip, Coding::kIdentity}) {
      for (TagSource source : {TagSource::kModified, TagSource::kMachine}) {
        const std::string text = tag(stamp, coding, source);
        CHECK(is_entity_tag(text));
        CHECK(text.size() < EntityTag::kBytesMax);
      }
    }
  }
}

}  // namespace weir::files
