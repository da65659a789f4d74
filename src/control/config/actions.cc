// What a route answers by itself: redirects and fixed responses, of both forms of the config.
#include <array>
#include <string>
#include <utility>

#include <weir/base/text.h>

#include "custom_settings.h"
#include "suggest.h"
#include "syntax.h"

namespace weir::control::config {

namespace {

// Framing and connection management are weir's own; a response that sets them could be cut short or
// glued to the next one.
constexpr std::array<std::string_view, 9> kOwnFields = {
    "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te",
    "trailer",        "upgrade",           "date"};

bool is_own_field(std::string_view name) noexcept {
  for (const std::string_view own : kOwnFields) {
    if (base::equals_ignore_case(own, name)) return true;
  }
  return false;
}

void add_field(Reader& reader, const Node& node, const KeyPath& path, std::string_view name,
               RespondDraft& draft) {
  const auto value = reader.text(node, path);
  if (!value) return;
  if (!is_field_value(*value)) {
    reader.error(node.place(), path, "must not contain line ends or other control characters");
    return;
  }
  draft.headers.emplace_back(name, base::trim(*value));
}

bool names_content_type(const RespondDraft& draft) noexcept {
  for (const auto& [name, value] : draft.headers) {
    if (base::equals_ignore_case(name, "content-type")) return true;
  }
  return false;
}

}  // namespace

std::string_view check_field_text(const ScalarValue& value) {
  return is_field_value(value.text) ? "" : "must not contain line ends or control characters";
}

bool is_redirect_status(int64_t status) noexcept {
  return (status >= 301 && status <= 303) || status == 307 || status == 308;
}

bool set_location(Reader& reader, const Node& node, const KeyPath& path, std::string& location) {
  const auto text = reader.text(node, path, Placeholders::kRedirect);
  if (!text) return false;
  if (std::string complaint = check_location(*text); !complaint.empty()) {
    reader.error(node.place(), path, std::move(complaint));
    return false;
  }
  location = *text;
  return true;
}

void read_location(Reader& reader, const TableEntry& entry, void* object) {
  auto& draft = *static_cast<RedirectDraft*>(object);
  set_location(reader, entry.member.value, entry.path, draft.location);
}

void read_response_headers(Reader& reader, const TableEntry& entry, void* object) {
  auto& draft = *static_cast<RespondDraft*>(object);
  if (!reader.is_table(entry.member.value, entry.path)) return;
  for (const Member& member : entry.member.value.members_in_file_order()) {
    const KeyPath here{.parent = &entry.path, .key = member.key};
    if (!is_token(member.key)) {
      reader.error(member.place, here, "is not a header name");
    } else if (is_own_field(member.key)) {
      reader.error(member.place, here, "is set by weir itself and cannot be given");
    } else if (member.value.kind() == Kind::kList) {
      for (size_t i = 0; i < member.value.size(); ++i) {
        add_field(reader, member.value.item(i),
                  KeyPath{.parent = &here, .index = static_cast<int64_t>(i)}, member.key, draft);
      }
    } else {
      add_field(reader, member.value, here, member.key, draft);
    }
  }
}

bool finish_respond(Reader& reader, const RespondDraft& draft, const Place& place,
                    const KeyPath& path, route::RespondAction& action) {
  const bool bodiless = draft.status == 204 || draft.status == 205 || draft.status == 304;
  if (bodiless && !draft.body.empty()) {
    reader.error(place, path,
                 "a response with status " + std::to_string(draft.status) + " cannot have a body");
    return false;
  }
  if (!draft.content_type.empty() && names_content_type(draft)) {
    reader.error(place, path, "gives the content type twice: content_type and headers");
    return false;
  }
  action.status = draft.status;
  action.headers = draft.headers;
  action.body = draft.body;
  if (!draft.content_type.empty()) {
    action.headers.emplace_back("Content-Type", draft.content_type);
  } else if (!draft.body.empty() && !names_content_type(draft)) {
    action.headers.emplace_back("Content-Type", "text/plain; charset=utf-8");
  }
  return true;
}

}  // namespace weir::control::config
