// Exchange, files: which file of a route answers, and the head of that answer.
#include <algorithm>
#include <array>

#include <weir/files/accept_encoding.h>
#include <weir/files/conditional.h>
#include <weir/files/file_path.h>
#include <weir/files/range.h>
#include <weir/http/h1/writer.h>
#include <weir/runtime/sys.h>

#include "exchange.h"
#include "file_answer.h"

namespace weir::proxy {

using base::Errc;
using base::Result;
using files::Coding;
using files::FileKind;
using files::FileRef;
using http::Method;
using runtime::Task;

namespace {

// How often a request looks for a file again that changed before anything was sent of it.
constexpr unsigned kTriesMax = 3;

constexpr std::string_view kRetryAfter = "Retry-After: 1\r\n";
constexpr std::string_view kAllowFiles = "Allow: GET, HEAD, OPTIONS\r\n";

files::LinkRule link_rule(route::FileLinks links) noexcept {
  switch (links) {
    case route::FileLinks::kAnywhere: return files::LinkRule::kAnywhere;
    case route::FileLinks::kNone: return files::LinkRule::kNone;
    case route::FileLinks::kBelowRoot: break;
  }
  return files::LinkRule::kBelowRoot;
}

// "dir" and "index.html" to "dir/index.html"; "." is the root itself.
std::string below(std::string_view directory, std::string_view name) {
  if (directory == ".") return std::string(name);
  std::string path(directory);
  return path.append("/").append(name);
}

uint16_t status_for(base::Error error) noexcept {
  switch (error.code) {
    case Errc::kNotFound: return 404;
    case Errc::kPermission: return 403;
    case Errc::kNoFiles:
    case Errc::kNoMemory: return 503;
    default: return 500;
  }
}

}  // namespace

Task<> Exchange::serve_file(const route::Route& route) {
  const route::FileRoute& rules = *route.file;
  if (!co_await settle_request_body()) co_return co_await refuse_body();
  if (request_.method == Method::kOptions) co_return co_await send_reply(204, kAllowFiles, {});
  if (request_.method != Method::kGet && request_.method != Method::kHead) {
    record_.reason = log::Reason::kUnsupported;
    co_return co_await refuse_file(rules, {.status = 405, .fields = kAllowFiles});
  }
  for (unsigned tries = 0; tries < kTriesMax; ++tries) {
    FileAnswer answer;
    const uint16_t failed = co_await locate_file(route, answer);
    if (failed != 0) {
      const std::string_view more = failed == 503 ? kRetryAfter : std::string_view();
      co_return co_await refuse_file(rules, {.status = failed, .fields = more});
    }
    if (answer.lacks_slash) co_return co_await redirect_to_slash();
    const FileSent sent = co_await answer_file(rules, answer, route.path);
    if (sent == FileSent::kAnswered) co_return;
    record_.reason = log::Reason::kInternal;
    if (sent == FileSent::kUnreadable) co_return co_await refuse_file(rules, {.status = 500});
    record_.reason = log::Reason::kNone;
  }
  record_.reason = log::Reason::kInternal;
  co_await refuse_file(rules, {.status = 503, .fields = kRetryAfter});
}

// What the request's path, or the route's fallback, leads to; otherwise the status to refuse with.
Task<uint16_t> Exchange::locate_file(const route::Route& route, FileAnswer& answer) {
  const route::FileRoute& rules = *route.file;
  base::Error error{.code = Errc::kNotFound};
  if (resolve_file(route, answer)) {
    // A hot file takes no coroutine and no system call.
    const auto known = worker_->files.try_open(rules.root, answer.path, link_rule(rules.links));
    if (known && *known && (**known)->kind == FileKind::kRegular && !answer.must_be_directory) {
      answer.file = **known;
      co_return 0;
    }
    const auto found = co_await find_file(rules, answer);
    if (found) co_return 0;
    error = found.error();
  }
  if (error.code == Errc::kNotFound && !rules.fallback.empty()) {
    answer.path.assign(rules.fallback);
    answer.must_be_directory = answer.lacks_slash = false;
    const auto found = co_await find_file(rules, answer);
    if (found && answer.file->kind == FileKind::kRegular) co_return 0;
  }
  const uint16_t status = status_for(error);
  if (status == 403) record_.reason = log::Reason::kDenied;
  if (status >= 500) record_.reason = log::Reason::kInternal;
  co_return status;
}

// Where the request's path leads below the root. No coroutine: the scratch is large.
bool Exchange::resolve_file(const route::Route& route, FileAnswer& answer) const {
  char scratch[files::kFilePathBytesMax + 1];
  const auto place =
      files::resolve_file_path(route.path, path_, {.allow_hidden = route.file->hidden}, scratch);
  if (!place) return false;
  answer.path.assign(place->path);
  answer.must_be_directory = place->must_be_directory;
  return true;
}

// The file for answer.path, through its index if that is a directory. A directory without index is
// an answer only where it may be listed.
Task<Result<void>> Exchange::find_file(const route::FileRoute& rules, FileAnswer& answer) {
  files::Store& store = worker_->files;
  const files::LinkRule links = link_rule(rules.links);
  auto opened = co_await open_file(store, rules.root, answer.path, links);
  if (!opened) co_return std::unexpected(opened.error());
  answer.file = std::move(*opened);
  if (answer.file->kind == FileKind::kRegular) {
    if (answer.must_be_directory) co_return base::fail(Errc::kNotFound);
    co_return Result<void>{};
  }
  answer.lacks_slash = rules.redirect_slash && !path_.ends_with('/');
  for (const std::string_view name : rules.index) {
    std::string path = below(answer.path, name);
    opened = co_await open_file(store, rules.root, path, links);
    if (!opened || (*opened)->kind != FileKind::kRegular) continue;
    answer.file = std::move(*opened);
    answer.path = std::move(path);
    co_return Result<void>{};
  }
  if (rules.listing) co_return Result<void>{};
  co_return base::fail(Errc::kNotFound);
}

Task<Result<FileRef>> Exchange::open_file(files::Store& store, std::string_view root,
                                          std::string_view path, files::LinkRule links) {
  if (auto known = store.try_open(root, path, links)) co_return std::move(*known);
  co_return co_await store.open(std::string(root), std::string(path), links);
}

// A relative reference (RFC 3986 4.2): no path can make it lead to another host.
Task<> Exchange::redirect_to_slash() {
  std::string location = "Location: ./";
  location.append(path_.substr(path_.rfind('/') + 1)).append("/");
  if (request_.has_query) location.append("?").append(request_.query);
  location += "\r\n";
  co_await send_reply(301, location, {});
}

// Which precompressed files lie beside it; looked for as often as the file itself.
Task<> Exchange::find_variants(const route::FileRoute& rules, const FileAnswer& answer) {
  files::OpenFile& file = *answer.file;
  std::array<FileRef, files::kCodings.size()> found;
  for (size_t i = 0; i < files::kCodings.size(); ++i) {
    std::string path = answer.path;
    path += files::coding_suffix(files::kCodings[i]);
    auto opened = co_await open_file(worker_->files, rules.root, path, link_rule(rules.links));
    if (opened && (*opened)->kind == FileKind::kRegular) found[i] = std::move(*opened);
  }
  file.variants = std::move(found);
  file.variants_checked_ms = worker_->reactor.now_ms();
}

// The precompressed file that the client likes best takes the place of the original.
void Exchange::choose_variant(FileAnswer& answer) const {
  files::CodingSet available;
  const auto& variants = answer.file->variants;
  for (size_t i = 0; i < files::kCodings.size(); ++i) {
    if (variants[i]) available.add(files::kCodings[i]);
  }
  if (available.empty()) return;
  const files::CodingChoice choice = files::choose_coding(request_.fields, available);
  answer.vary = choice.vary;
  if (choice.coding == Coding::kIdentity) return;
  answer.coding = choice.coding;
  // First out of the original, which may be its last owner.
  FileRef chosen = variants[static_cast<size_t>(choice.coding)];
  answer.file = std::move(chosen);
}

Task<FileSent> Exchange::answer_file(const route::FileRoute& rules, FileAnswer& answer,
                                     std::string_view route_path) {
  if (answer.file->kind == FileKind::kDirectory) {
    co_await list_directory(rules, answer, route_path);
    co_return FileSent::kAnswered;
  }
  const Settings& settings = pin_->settings;
  const std::string_view name = answer.path == "." ? rules.root : std::string_view(answer.path);
  answer.type = settings.mime ? settings.mime->lookup(name) : std::string_view();
  if (rules.precompressed && answer.path != ".") {
    if (!worker_->files.variants_fresh(*answer.file)) co_await find_variants(rules, answer);
    choose_variant(answer);
  }
  const int64_t now_s = worker_->reactor.unix_us() / 1'000'000;
  files::EntityTag tag = answer.file->tag;
  if (answer.coding != Coding::kIdentity && !tag.empty()) {
    tag = files::make_entity_tag(answer.file->stamp, answer.coding);
  }
  const files::Evaluation conditions =
      files::evaluate_preconditions(request_.fields, request_.method,
                                    {.etag = tag.view(), .modified = answer.file->modified}, now_s);
  if (conditions.outcome == files::Precondition::kFailed) {
    co_await refuse_file(rules, {.status = 412});
    co_return FileSent::kAnswered;
  }
  answer.body = {.status = 200, .length = answer.file->stamp.size};
  if (conditions.outcome == files::Precondition::kNotModified) {
    answer.body = {.status = 304};
  } else if (conditions.use_range) {
    const auto selection = files::select_ranges(request_.fields, answer.file->stamp.size);
    if (selection.verdict != files::RangeVerdict::kWhole) {
      uint64_t random[2];
      runtime::sys::random_bytes(random, sizeof random);
      answer.body = files::plan_body(selection, answer.type, files::Boundary(random[0], random[1]));
    }
  }
  if (answer.body.status == 416) {
    std::string range = "Content-Range: ";
    range.append(answer.body.content_range).append("\r\n");
    co_await refuse_file(rules, {.status = 416, .fields = range});
    co_return FileSent::kAnswered;
  }
  co_return co_await send_file_answer(rules, answer, tag.view());
}

// An error page of the route's, or the plain one.
Task<> Exchange::refuse_file(const route::FileRoute& rules, FileRefusal refusal) {
  for (const route::ErrorPage& page : rules.error_pages) {
    if (page.status != refusal.status) continue;
    for (unsigned tries = 0; tries < kTriesMax; ++tries) {
      auto found =
          co_await open_file(worker_->files, rules.root, page.path, link_rule(rules.links));
      if (!found || (*found)->kind != FileKind::kRegular) break;
      FileAnswer answer;
      answer.file = std::move(*found);
      answer.path.assign(page.path);
      answer.status = refusal.status;
      answer.fields = refusal.fields;
      answer.type = pin_->settings.mime ? pin_->settings.mime->lookup(page.path) : "";
      answer.body = {.status = refusal.status, .length = answer.file->stamp.size};
      const FileSent sent = co_await send_file_answer(rules, answer, {});
      if (sent == FileSent::kAnswered) co_return;
      if (sent == FileSent::kUnreadable) break;
    }
    break;
  }
  co_await reply_with(refusal.status, refusal.fields);
}

// Fields of a file's head; `tag` may be empty.
void Exchange::write_file_head(base::ByteWriter& out, const route::FileRoute& rules,
                               const FileAnswer& answer, std::string_view tag) noexcept {
  using http::h1::append_field;
  const Settings& settings = pin_->settings;
  const files::BodyPlan& body = answer.body;
  const bool content = body.status != 304;
  http::h1::append_status_line(out, body.status);
  if (content && !body.content_type.empty()) {
    append_field(out, "Content-Type", body.content_type);
  } else if (content && !answer.type.empty()) {
    append_field(out, "Content-Type", answer.type);
  }
  if (content && answer.coding != Coding::kIdentity) {
    append_field(out, "Content-Encoding", files::coding_name(answer.coding));
  }
  if (body.status != 304) append_field(out, "Content-Length", body.length);
  if (!body.content_range.empty()) append_field(out, "Content-Range", body.content_range);
  if (!tag.empty()) append_field(out, "ETag", tag);
  if (answer.file->modified && answer.status == 200) {
    char date[http::h1::kHttpDateBytes];
    http::h1::format_http_date(date, *answer.file->modified);
    append_field(out, "Last-Modified", {date, sizeof date});
  }
  if (content && answer.status == 200) out.append("Accept-Ranges: bytes\r\n");
  out.append(answer.fields);
  if (answer.vary) out.append("Vary: Accept-Encoding\r\n");
  if (!rules.cache_control.empty() && answer.status == 200) {
    append_field(out, "Cache-Control", rules.cache_control);
  }
  if (rules.expires_s != 0 && answer.status == 200) {
    char date[http::h1::kHttpDateBytes];
    http::h1::format_http_date(date, worker_->reactor.unix_us() / 1'000'000 + rules.expires_s);
    append_field(out, "Expires", {date, sizeof date});
  }
  append_field(out, "Date", worker_->http_date());
  if (!settings.server.empty()) append_field(out, "Server", settings.server);
  append_persistence(out);
  out.append("\r\n");
}

}  // namespace weir::proxy
