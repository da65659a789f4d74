// Routes on their way from tables to specs: what was given so far, beside the route itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <weir/control/config/config.h>

#include "document.h"

namespace weir::control::config {

// redirect = {url = ..., status = ...}
struct RedirectDraft {
  std::string location;
  uint16_t status;  // default in the schema

  RedirectDraft();
};

// respond = {status = ..., headers = ..., body = ..., content_type = ...}
struct RespondDraft {
  uint16_t status;  // default in the schema
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::string content_type;

  RespondDraft();
};

struct RouteDraft {
  Route route;
  uint8_t match = 0;             // position among the choices of `match`
  std::string_view action_key;   // the first action that the table gives; empty: none yet
  std::optional<Place> upgrade;  // of the key, where the table gives it
};

enum class ShortType : uint8_t { kNone, kProxy, kRedirect, kRespond, kFile };

// A table of the short form. Which keys belong together is known only once all are read.
struct ShortDraft {
  Route route;
  ShortType type = ShortType::kNone;
  std::optional<Member> url;
  uint16_t status = 0;  // 0: not given
  RespondDraft respond;
  std::vector<Member> file;  // what the table gives of [route.file]
  std::vector<std::string> allowed_methods;
};

}  // namespace weir::control::config
