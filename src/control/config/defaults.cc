// Defaults: the constructors of the settings, all from the table of the schema.

#include <optional>

#include <weir/base/check.h>
#include <weir/base/text.h>
#include <weir/control/config/config.h>
#include <weir/control/config/schema.h>

#include "custom_settings.h"
#include "route_draft.h"
#include "suggest.h"
#include "tls_names.h"
#include "units.h"

namespace weir::control::config {

namespace {

// A default that cannot be read is a fault of the schema, found by any test.
int64_t fallback_number(const Setting& setting) {
  std::optional<int64_t> number;
  switch (setting.type) {
    case ValueType::kBool: return setting.fallback == "true" ? 1 : 0;
    case ValueType::kDuration: number = parse_duration(setting.fallback); break;
    case ValueType::kChoice: {
      const auto words = split_words(setting.choices);
      for (size_t i = 0; i < words.size(); ++i) {
        if (words[i] == setting.fallback) number = static_cast<int64_t>(i);
      }
      break;
    }
    case ValueType::kInteger:
    case ValueType::kSize: number = parse_size(setting.fallback); break;
    case ValueType::kString:
    case ValueType::kCustom: break;
  }
  WEIR_CHECK(number.has_value());
  return *number;
}

}  // namespace

void apply_defaults(const Section& section, void* object) {
  for (const Setting& setting : section.settings) {
    if (setting.type == ValueType::kCustom || setting.fallback.empty()) continue;
    ScalarValue value;
    if (setting.type == ValueType::kString) {
      value.text = setting.fallback;
    } else {
      value.number = fallback_number(setting);
    }
    setting.store(object, value);
  }
}

Listener::Listener() { apply_defaults(section("listener"), this); }
ServerSettings::ServerSettings() : threads(0) { apply_defaults(section("server"), this); }
LoggingSettings::LoggingSettings() { apply_defaults(section("logging"), this); }
PerformanceSettings::PerformanceSettings() { apply_defaults(section("performance"), this); }
MimeSettings::MimeSettings() { apply_defaults(section("mime"), this); }
SecuritySettings::SecuritySettings() { apply_defaults(section("security"), this); }
TlsSettings::TlsSettings()
    : ciphers(kDefaultCiphers),
      ciphersuites(kDefaultCiphersuites),
      groups(kDefaultGroups),
      alpn{std::string(kHttp11)} {
  apply_defaults(section("tls"), this);
}
HealthSettings::HealthSettings() : expected_status(1) {
  apply_defaults(section("health_check"), this);
}
StickySettings::StickySettings() { apply_defaults(section("sticky"), this); }
UpstreamSettings::UpstreamSettings() {
  apply_defaults(section("upstream_defaults"), this);
  apply_defaults(section("passive_check"), &passive);
  apply_defaults(section("circuit_breaker"), &circuit);
  // It takes a table to switch them on.
  health.enabled = false;
}
ResolverSettings::ResolverSettings() { apply_defaults(section("resolver"), this); }
ControlSettings::ControlSettings() : socket_mode(kDefaultSocketMode) {
  apply_defaults(section("control"), this);
}
RedirectDraft::RedirectDraft() { apply_defaults(section("route.redirect"), this); }
RespondDraft::RespondDraft() { apply_defaults(section("route.respond"), this); }

}  // namespace weir::control::config
