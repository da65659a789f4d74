// Exchange: which server of the upstream gets the next try.
#include <weir/base/text.h>

#include "exchange.h"

namespace weir::proxy {

using http::Field;
using http::KnownField;
using upstream::hash_key;

namespace {

// The value of the first cookie of that name (RFC 6265 4.2.1), or empty.
std::string_view find_cookie(const http::FieldTable& fields, std::string_view name) noexcept {
  if (!fields.has(KnownField::kCookie)) return {};
  for (const Field& field : fields) {
    if (field.known != KnownField::kCookie) continue;
    std::string_view rest = field.value;
    while (true) {
      const size_t end = rest.find(';');
      const std::string_view pair = base::trim(rest.substr(0, end));
      if (pair.size() > name.size() && pair[name.size()] == '=' && pair.starts_with(name)) {
        return pair.substr(name.size() + 1);
      }
      if (end == std::string_view::npos) break;
      rest.remove_prefix(end + 1);
    }
  }
  return {};
}

}  // namespace

uint64_t Exchange::hash_client() noexcept {
  client_->know_peer();
  // All that come through a Unix socket are one client.
  return client_->peer_is_unix ? hash_key({}) : upstream::hash_client(client_->peer);
}

// What the algorithms by hash choose by; the same for every try of a request.
uint64_t Exchange::balance_key(const route::BalanceSpec& balance) noexcept {
  using Source = route::HashKeySpec::Source;
  if (balance.algorithm == route::Balance::kIpHash) return hash_client();
  if (balance.algorithm != route::Balance::kConsistentHash) return 0;
  // A CONNECT has no path, but an authority.
  const std::string_view path = path_.empty() ? request_.target : path_;
  std::string_view text;
  switch (balance.hash_key.source) {
    case Source::kClientIp: break;
    case Source::kPath: return hash_key(path);
    case Source::kUri:
      return hash_key(path) ^
             (request_.has_query ? upstream::next_hash(hash_key(request_.query)) : 0);
    case Source::kHeader:
      if (const Field* field = request_.fields.find(balance.hash_key.name)) text = field->value;
      break;
    case Source::kCookie: text = find_cookie(request_.fields, balance.hash_key.name); break;
  }
  return text.empty() ? hash_client() : hash_key(text);
}

// False: there is none, and upstream_error_ says so where nothing was tried before.
bool Exchange::choose_server(const route::UpstreamSpec& spec, uint64_t key,
                             std::span<const uint64_t> tried) noexcept {
  turn_ = worker_->upstreams.choose(
      spec.id, {.now_ns = worker_->reactor.now_ns(), .key = key, .tried = tried});
  if (turn_) {
    upstream::Endpoint* const endpoint = &turn_.endpoint();
    if (endpoint_ != nullptr) endpoint_->let_go();
    endpoint_ = endpoint;
    endpoint_->hold();
    return true;
  }
  if (turn_.missing() == upstream::NoServer::kFull) upstream_error_ = {.code = base::Errc::kLimit};
  return false;
}

// What it means for the balancing that a try has failed: who keeps requests waiting is slow, who
// refuses them is not fast.
void Exchange::end_turn_in_vain() noexcept {
  const bool slow = upstream_error_.code == base::Errc::kTimedOut && request_error_status_ == 0 &&
                    cancelled_ == log::Reason::kNone;
  if (turn_ && slow) turn_.note_latency(worker_->reactor.now_ns());
  turn_.end();
}

}  // namespace weir::proxy
