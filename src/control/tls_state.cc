#include <weir/control/tls_state.h>

#include <algorithm>
#include <array>
#include <utility>

#include <weir/base/check.h>
#include <weir/runtime/sys.h>

#include "tls_plan.h"

namespace weir::control {

namespace {

void add_name(std::vector<std::string>& names, const std::string& name) {
  if (!name.empty()) names.push_back(name);
}

bool speaks_tls(const config::Config& config) {
  return std::ranges::any_of(config.listeners, &config::Listener::tls);
}

}  // namespace

std::string sentence(const config::Config& config, config::Place place, std::string_view text) {
  std::string result = config.file;
  if (place.line != 0) result.append(":").append(std::to_string(place.line));
  return result.append(": ").append(text);
}

config::Place place_of(const config::Config& config, std::string_view key,
                       config::Place otherwise) {
  const auto found = config.places.find(key);
  return found != config.places.end() ? found->second : otherwise;
}

FileFingerprints select_files(const FileFingerprints& all, const std::vector<std::string>& paths) {
  FileFingerprints selected;
  for (const std::string& path : paths) {
    const auto found = all.find(path);
    selected.emplace(path, found != all.end() ? found->second : FileFingerprint{});
  }
  return selected;
}

bool same_files(const FileFingerprints& before, const FileFingerprints& now) {
  return std::ranges::equal(before, now, [](const auto& a, const auto& b) {
    return a.first == b.first && unchanged(a.second, b.second);
  });
}

TlsState::TlsState(uint32_t cores, KernelQuestion question) : question_(std::move(question)) {
  for (uint32_t i = 0; i < cores; ++i) engines_.push_back(std::make_unique<net::tls::Engine>());
}

TlsState::~TlsState() = default;

std::vector<std::string> TlsState::files(const config::Config& config) {
  std::vector<std::string> names;
  if (speaks_tls(config)) {
    for (const config::CertificateFiles& one : config.tls.certificates) {
      add_name(names, one.cert_path);
      add_name(names, one.key_path);
      add_name(names, one.key_passphrase_file);
      add_name(names, one.ocsp_response_path);
    }
    if (config.tls.client_auth != config::ClientAuth::kOff) {
      add_name(names, config.tls.client_ca_path);
      add_name(names, config.tls.client_crl_path);
    }
    if (config.tls.session_tickets) {
      for (const std::string& name : config.tls.ticket_key_files) add_name(names, name);
    }
  }
  for (const config::Upstream& upstream : config.upstreams) {
    if (!upstream.tls) continue;
    add_name(names, upstream.tls_ca_path);
    add_name(names, upstream.tls_cert_path);
    add_name(names, upstream.tls_key_path);
  }
  std::ranges::sort(names);
  names.erase(std::ranges::unique(names).begin(), names.end());
  return names;
}

TlsPlan TlsState::plan(const config::Config& config, std::span<const route::UpstreamSpec> upstreams,
                       const FileFingerprints& files, int64_t now_s) {
  TlsPlan plan;
  const bool to_origins = std::ranges::any_of(upstreams, &route::UpstreamSpec::tls);
  plan.server.wanted = speaks_tls(config);
  // Where no keys are made there is nothing to rotate; those that there are come back with TLS.
  plan.tickets = present_.tickets;
  plan.tickets.rotation_ms = 0;
  Kernel kernel;
  if (plan.server.wanted || to_origins) kernel = choose_kernel(config, plan);
  if (plan.server.wanted) {
    plan_tickets(config, files, plan);
    plan_server(config, kernel, files, now_s, plan);
  } else if (present_.server.wanted) {
    // A listener that ends or changes still has connections on their way to it. For this one
    // generation they are served as before.
    plan.server.settings = present_.server.settings;
    plan.server.files = present_.server.files;
    plan.server.contexts = present_.server.contexts;
  }
  plan.cores.resize(engines_.size());
  for (size_t i = 0; i < plan.server.contexts.size(); ++i) {
    plan.cores[i].server = plan.server.contexts[i];
  }
  if (to_origins) plan_clients(config, upstreams, kernel, files, now_s, plan);
  if (plan.server.contexts.empty() && plan.clients.empty()) plan.cores.clear();
  if (!plan.errors.empty()) plan.cores.clear();
  return plan;
}

void TlsState::commit(TlsPlan&& plan, uint64_t now_ms) {
  WEIR_CHECK(plan.errors.empty());
  if (plan.tickets_changed) tickets_since_ms_ = now_ms;
  present_.server = std::move(plan.server);
  present_.clients = std::move(plan.clients);
  present_.tickets = std::move(plan.tickets);
}

// ---- session tickets

namespace {

net::tls::TicketKeyRing next_ring(const net::tls::TicketKeyRing& ring, uint32_t previous_kept) {
  std::array<uint8_t, net::tls::TicketKeyRing::kSeedBytes> seed;
  runtime::sys::random_bytes(seed.data(), seed.size());
  net::tls::TicketKeyRing next = ring.rotated(seed, previous_kept);
  net::tls::wipe(seed.data(), seed.size());
  return next;
}

}  // namespace

void TlsState::plan_tickets(const config::Config& config, const FileFingerprints& files,
                            TlsPlan& plan) {
  const config::TlsSettings& tls = config.tls;
  const TlsPlan::Tickets& present = present_.tickets;
  TlsPlan::Tickets& next = plan.tickets;
  if (!tls.session_tickets) {
    next = {};
    plan.tickets_changed = present.ring.size() != 0;
    return;
  }
  next.file_names = tls.ticket_key_files;
  next.files = select_files(files, tls.ticket_key_files);
  const bool same = present.ring.size() != 0 && present.file_names == next.file_names &&
                    same_files(present.files, next.files);
  if (tls.ticket_key_files.empty()) {
    next.rotation_ms = static_cast<uint64_t>(tls.ticket_rotation.count());
    next.previous_kept = tls.previous_ticket_keys();
    // Tickets of keys from files are good for as long as those of weir's own.
    if (!same) next.ring = next_ring(present.ring, next.previous_kept);
  } else if (same) {
    next.files = present.files;
  } else if (auto loaded = net::tls::TicketKeyRing::load(tls.ticket_key_files)) {
    next.ring = *loaded;
  } else {
    plan.errors.push_back(
        sentence(config, place_of(config, "tls.ticket_key_files", tls.place), loaded.error()));
  }
  plan.tickets_changed = !same;
}

std::optional<uint64_t> TlsState::rotation_due_ms() const noexcept {
  if (present_.tickets.rotation_ms == 0) return std::nullopt;
  return tickets_since_ms_ + present_.tickets.rotation_ms;
}

void TlsState::rotate_tickets(uint64_t now_ms) {
  TlsPlan::Tickets& tickets = present_.tickets;
  tickets.ring = next_ring(tickets.ring, tickets.previous_kept);
  tickets_since_ms_ = now_ms;
}

}  // namespace weir::control
