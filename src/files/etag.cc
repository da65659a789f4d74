#include <weir/files/etag.h>

#include <weir/base/byte_writer.h>

namespace weir::files {

namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kYear1980 = 315532800;  // the earliest time that zip can express
// Ticks are 1 to 10 ms on Linux. A stamp of a whole second may be of a file system that has no
// finer ones, or only every second of them.
constexpr int64_t kTick = 50'000'000;
constexpr int64_t kCoarseTick = 2 * kSecond;

int64_t seconds_of(int64_t nanoseconds) noexcept {
  const int64_t seconds = nanoseconds / kSecond;
  return nanoseconds % kSecond < 0 ? seconds - 1 : seconds;
}

bool uses_change_time(const FileStamp& stamp, TagSource source) noexcept {
  return source == TagSource::kMachine || !has_real_time(stamp);
}

}  // namespace

bool has_real_time(const FileStamp& stamp) noexcept {
  return stamp.modified_ns != 0 && stamp.modified_ns != kSecond &&
         stamp.modified_ns != kYear1980 * kSecond;
}

bool is_settled(const FileStamp& stamp, int64_t now_ns, TagSource source) noexcept {
  const int64_t time = uses_change_time(stamp, source) ? stamp.changed_ns : stamp.modified_ns;
  const int64_t tick = time % kSecond == 0 ? kCoarseTick : kTick;
  int64_t age = 0;
  if (__builtin_sub_overflow(now_ns, time, &age)) return true;  // centuries apart
  return age >= tick || age < -kCoarseTick;
}

EntityTag make_entity_tag(const FileStamp& stamp, Coding coding, TagSource source) noexcept {
  EntityTag tag;
  base::ByteWriter out(tag.text_, sizeof tag.text_);
  out.append('"');
  out.append_hex(static_cast<uint64_t>(stamp.modified_ns));
  out.append('-');
  out.append_hex(stamp.size);
  if (uses_change_time(stamp, source)) {
    out.append('-');
    out.append_hex(static_cast<uint64_t>(stamp.changed_ns));
    out.append('-');
    out.append_hex(stamp.inode);
  }
  if (coding != Coding::kIdentity) {
    out.append('-');
    out.append(coding_name(coding));
  }
  out.append('"');
  tag.size_ = static_cast<uint8_t>(out.size());
  return tag;
}

std::optional<int64_t> last_modified_to_send(const FileStamp& stamp, int64_t now_ns) noexcept {
  if (!has_real_time(stamp)) return std::nullopt;
  const int64_t seconds = seconds_of(stamp.modified_ns);
  if (seconds >= seconds_of(now_ns)) return std::nullopt;
  return seconds;
}

}  // namespace weir::files
