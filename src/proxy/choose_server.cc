// Exchange: which server of the upstream gets the next try.
#include <weir/base/text.h>

#include "exchange.h"

namespace weir::proxy {

using http::Field;
using http::KnownField;
using upstream::hash_key;
using upstream::NoServer;

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

uint32_t Exchange::now_s() const noexcept {
  return static_cast<uint32_t>(worker_->reactor.unix_us() / 1'000'000);
}

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

void Exchange::read_sticky_cookie(upstream::Pool& pool, std::string_view name) noexcept {
  const std::string_view value = find_cookie(request_.fields, name);
  if (!value.empty()) sticky_tag_ = pool.read_cookie(value, now_s());
}

// The line that binds the client to the server that has answered; empty: it is bound already.
std::string Exchange::sticky_line() {
  // Without a pin the spec may be gone; answers are written with one.
  if (sticky_ == nullptr || !turn_ || turn_.tag() == 0 || turn_.tag() == sticky_tag_) return {};
  upstream::Pool* const pool = worker_->upstreams.pool(upstream_id_);
  if (pool == nullptr || !pool->sticky()) return {};
  char value[upstream::StickySigner::kValueBytes];
  pool->write_cookie(value, turn_.tag(), now_s());
  std::string line = "Set-Cookie: " + sticky_->cookie + "=";
  line.append(value, sizeof value).append("; Path=").append(sticky_->path);
  if (sticky_->age_max_s != 0) line += "; Max-Age=" + std::to_string(sticky_->age_max_s);
  line += "; HttpOnly";
  if (sticky_->secure) line += "; Secure";
  if (!sticky_->same_site.empty()) line += "; SameSite=" + sticky_->same_site;
  return line += "\r\n";
}

upstream::Pick Exchange::pick() const noexcept {
  return {.now_ns = worker_->reactor.now_ns(),
          .key = balance_key_,
          .sticky_tag = sticky_tag_,
          .has_place = static_cast<bool>(turn_),
          .tried = {tried_.data(), tried_count_}};
}

// False: there is none, and missing_ says why.
bool Exchange::choose_server(const route::UpstreamSpec& spec) noexcept {
  upstream::Pool* const pool = worker_->upstreams.pool(spec.id);
  missing_ = NoServer::kDown;
  if (pool == nullptr) return false;
  return take_turn(pool->choose(pick()));
}

bool Exchange::take_turn(upstream::Turn turn) noexcept {
  missing_ = turn.missing();
  turn_ = std::move(turn);
  if (!turn_) return false;
  upstream::Endpoint* const endpoint = &turn_.endpoint();
  if (endpoint_ != nullptr) endpoint_->let_go();
  endpoint_ = endpoint;
  endpoint_->hold();
  if (tried_count_ < tried_.size()) tried_[tried_count_++] = turn_.identity();
  return true;
}

// All servers have as many requests as they may have: waits until one has room. After a failed try
// this is the retry that was paid for, and what that try has failed by is what the client is told
// if there is nothing left to wait for.
runtime::Task<bool> Exchange::wait_for_server(const route::UpstreamSpec& spec) {
  if (missing_ != NoServer::kFull) co_return false;
  upstream::Pool* const pool = worker_->upstreams.pool(spec.id);
  const bool again = tried_count_ != 0;
  client_->transport->watch_end(&Exchange::on_client_end, this);
  upstream::Turn turn;
  if (cancelled_ == log::Reason::kNone) {
    turn = co_await pool->wait(wait_, pick(), total_deadline_ms_);
    if (!request_body_.complete()) client_->transport->unwatch_end();
    if (turn.missing() == NoServer::kFull) upstream_error_ = {.code = base::Errc::kLimit};
  }
  const bool served = take_turn(std::move(turn));
  if (again && served) ++worker_->counters.failovers;
  if (again && !served) pool->take_back_retry();
  co_return served;
}

}  // namespace weir::proxy
