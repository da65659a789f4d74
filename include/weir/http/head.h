// The one model of a request head and a response head that every protocol version fills and every
// stage reads. Plain values owned by the exchange, used on its core's thread only. All views point
// into the received bytes (or into static storage): whoever moves or reuses those bytes must parse
// again. A head never owns text, never allocates, and must never be changed into text by copying a
// received line: the writer re-serialises it field by field.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>

namespace weir::http {

enum class Method : uint8_t {
  kGet,
  kHead,
  kPost,
  kPut,
  kDelete,
  kConnect,
  kOptions,
  kTrace,
  kPatch,
  kOther,
};

// Methods are case-sensitive (RFC 9110 9.1): "get" is kOther.
Method classify_method(std::string_view text) noexcept;

// Fields that some part of weir asks for by identity. Everything else is kOther and found by name.
// Keep at most 64 (FieldTable keeps a bit for each) and in step with the table in head.cc.
enum class KnownField : uint8_t {
  kOther,
  kHost,
  kConnection,
  kContentLength,
  kTransferEncoding,
  kTe,
  kTrailer,
  kUpgrade,
  kExpect,
  kKeepAlive,
  kProxyConnection,
  kProxyAuthenticate,
  kProxyAuthorization,
  kProxyAuthenticationInfo,
  kHttp2Settings,
  kVia,
  kForwarded,
  kXForwardedFor,
  kXForwardedProto,
  kXForwardedHost,
  kXForwardedPort,
  kXForwardedServer,
  kXRealIp,
  kXRequestId,
  kDate,
  kServer,
  kUserAgent,
  kReferer,
  kAccept,
  kAcceptEncoding,
  kAuthorization,
  kWwwAuthenticate,
  kCookie,
  kSetCookie,
  kContentType,
  kContentEncoding,
  kContentRange,
  kContentLanguage,
  kContentLocation,
  kCacheControl,
  kPragma,
  kExpires,
  kAge,
  kVary,
  kLocation,
  kEtag,
  kLastModified,
  kIfMatch,
  kIfNoneMatch,
  kIfModifiedSince,
  kIfUnmodifiedSince,
  kIfRange,
  kRange,
  kMaxForwards,
  kOrigin,
  kRetryAfter,
  kCount,
};
static_assert(static_cast<size_t>(KnownField::kCount) <= 64);

// Case-insensitive. `name` must be a token (RFC 9110 5.6.2); anything else may be misjudged.
KnownField classify_field(std::string_view name) noexcept;

// The canonical spelling in lower case, empty for kOther.
std::string_view field_name(KnownField known) noexcept;

// A received field line. `value` has no surrounding white space and holds no control bytes but
// HTAB.
//
// `hop_by_hop` says that the field ends here and must not be forwarded. The parser sets it for
//  1. Connection, Keep-Alive, Proxy-Connection, TE, Trailer, Transfer-Encoding, Upgrade and
//     HTTP2-Settings, always;
//  2. every field that a Connection option of the same head nominates, with one exception: fields
//     that weir knows (a KnownField other than those of rule 1) are end-to-end by definition and
//     RFC 9110 7.6.1 forbids to nominate them. Such a nomination is ignored, so that
//     "Connection: X-Forwarded-For", "Connection: Host", "Connection: Content-Length" or
//     "Connection: Authorization" removes nothing that the origin relies on;
//  3. a name that becomes a KnownField when its '_' are read as '-' ("Content_Length",
//     "X_Forwarded_For"): CGI-like origins cannot tell the two apart.
// A stage may set it as well to drop a field.
struct Field {
  std::string_view name;
  std::string_view value;
  KnownField known = KnownField::kOther;
  bool hop_by_hop = false;
};

// Fields in order of arrival, at most kFieldsMax. A few have room in the table itself; storage for
// more is allocated when they come and kept by clear(). Copying costs what is in it.
class FieldTable {
 public:
  static constexpr size_t kFieldsMax = 128;

  // Not defaulted: `FieldTable{}` would then fill the storage with zeros.
  FieldTable() noexcept {}  // NOLINT(modernize-use-equals-default)
  FieldTable(const FieldTable& other) noexcept { copy(other); }
  FieldTable& operator=(const FieldTable& other) noexcept {
    if (this != &other) copy(other);
    return *this;
  }
  ~FieldTable() = default;

  [[nodiscard]] size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  Field* begin() noexcept { return data(); }
  Field* end() noexcept { return data() + size_; }
  [[nodiscard]] const Field* begin() const noexcept { return data(); }
  [[nodiscard]] const Field* end() const noexcept { return data() + size_; }
  Field& operator[](size_t index) noexcept { return data()[index]; }
  const Field& operator[](size_t index) const noexcept { return data()[index]; }

  void clear() noexcept {
    size_ = 0;
    present_ = 0;
  }
  // The same, and gives back what was allocated.
  void release() noexcept {
    clear();
    more_.reset();
    capacity_ = kFieldsInside;
  }
  // False when the table is full.
  [[nodiscard]] bool push(const Field& field) noexcept {
    if (size_ == capacity_ && !grow()) return false;
    ::new (static_cast<void*>(data() + size_)) Field(field);
    ++size_;
    present_ |= bit(field.known);
    return true;
  }

  // Is there at least one? One test of a bit. Not for kOther.
  [[nodiscard]] bool has(KnownField known) const noexcept { return (present_ & bit(known)) != 0; }
  // The first of that identity, or null. Cheap when there is none. Not for kOther.
  [[nodiscard]] const Field* find(KnownField known) const noexcept;
  // The first of that name, case-insensitively, or null.
  [[nodiscard]] const Field* find(std::string_view name) const noexcept;
  [[nodiscard]] size_t count(KnownField known) const noexcept;
  [[nodiscard]] size_t count(std::string_view name) const noexcept;

 private:
  static constexpr uint64_t bit(KnownField known) noexcept {
    return uint64_t{1} << static_cast<unsigned>(known);
  }
  static constexpr size_t kFieldsInside = 12;
  Field* data() noexcept { return reinterpret_cast<Field*>(more_ ? more_.get() : inside_); }
  [[nodiscard]] const Field* data() const noexcept {
    return reinterpret_cast<const Field*>(more_ ? more_.get() : inside_);
  }
  bool grow() noexcept;  // false: it has all it may have
  void reserve(size_t fields) noexcept;
  void copy(const FieldTable& other) noexcept;

  uint64_t present_ = 0;
  size_t size_ = 0;
  size_t capacity_ = kFieldsInside;
  // Raw bytes, because an array of Field would be filled with zeros by every constructor.
  std::unique_ptr<std::byte[]> more_;  // aligned as all that operator new gives
  alignas(Field) std::byte inside_[kFieldsInside * sizeof(Field)];
};

// Does a Connection field of `fields` name any field by rule 2 above (exception included)? Then the
// trailer section, which is read when the head's text is gone, is dropped as a whole.
bool connection_nominates(const FieldTable& fields) noexcept;

// How the end of the body is found.
enum class BodyFraming : uint8_t {
  kNone,        // there is no body
  kLength,      // content_length bytes (may be 0: "Content-Length: 0" was sent)
  kChunked,     // Transfer-Encoding: chunked
  kUntilClose,  // until the origin closes; responses only
};

struct RequestHead {
  Method method = Method::kOther;
  uint8_t minor_version = 1;  // of HTTP/1; 1 also for a higher minor version than weir knows
  BodyFraming framing = BodyFraming::kNone;
  bool has_query = false;        // "/a?" has an empty query, "/a" has none
  bool keep_alive = false;       // the client allows another request after this one
  bool expect_continue = false;  // HTTP/1.1, content follows, and the client waits for 100
  bool has_upgrade = false;      // HTTP/1.1, an Upgrade field and the Connection option for it
  uint64_t content_length = 0;   // with kLength
  std::string_view method_text;
  std::string_view target;     // as received
  std::string_view scheme;     // "http" or "https" as sent in absolute-form, else empty
  std::string_view authority;  // of absolute-form or authority-form, else Host; may have a port
  std::string_view host;       // authority without the port, as sent; IPv6 keeps its brackets
  std::string_view port;       // digits, empty when there are none
  std::string_view path;       // raw, starts with '/'; "*" for OPTIONS *; empty for CONNECT
  std::string_view query;      // raw, without the '?'
  FieldTable fields;

  void reset() noexcept;
};

struct ResponseHead {
  uint16_t status = 0;
  uint8_t minor_version = 1;
  BodyFraming framing = BodyFraming::kNone;
  bool keep_alive = false;   // the origin allows another request on this connection
  bool has_upgrade = false;  // an Upgrade field and the Connection option for it
  // With kLength; also set, as information, when a HEAD or 304 answer names the length it would
  // have.
  uint64_t content_length = 0;
  std::string_view reason;  // may be empty
  FieldTable fields;

  void reset() noexcept;
};

}  // namespace weir::http
