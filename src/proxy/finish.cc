// Exchange, last part: counting and the access record, exactly once on every path.
#include <weir/log/access.h>

#include "exchange.h"

namespace weir::proxy {

namespace {

void note_tls(const ClientConnection& client, log::AccessRecord& record) noexcept {
  const net::TlsFacts facts = client.tls();
  record.tls_version = facts.version;
  record.tls_cipher = facts.cipher;
  record.tls_resumed = facts.resumed;
  record.tls_kernel = facts.records == net::tls::RecordPath::kKernel;
  if (!record.tls_kernel) record.tls_why = net::tls::to_string(facts.records);
  if (client.certificate == nullptr) return;
  record.tls_client_subject = client.certificate->subject;
  record.tls_client_fingerprint = client.certificate->fingerprint;
}

}  // namespace

void Exchange::count_response() noexcept {
  Counters& counters = worker_->counters;
  switch (record_.status / 100) {
    case 1: ++counters.responses_1xx; break;
    case 2: ++counters.responses_2xx; break;
    case 3: ++counters.responses_3xx; break;
    case 4: ++counters.responses_4xx; break;
    case 5: ++counters.responses_5xx; break;
    default: break;
  }
  counters.bytes_in += record_.bytes_in;
  counters.bytes_out += record_.bytes_out;
  if (record_.reason == log::Reason::kClientGone) ++counters.client_gone;
}

void Exchange::write_log() noexcept {
  if (!pin_->settings.access_log) return;
  client_->know_peer();
  record_.client = client_->peer;
  record_.client_port = client_->peer_port;
  record_.client_is_unix = client_->peer_is_unix;
  if (client_->secure) note_tls(*client_, record_);
  record_.duration_us = (worker_->reactor.now_ns() - start_ns_) / 1000;
  if (head_known_) {
    record_.protocol_minor = request_.minor_version;
    record_.method = request_.method_text;
    record_.host = request_.authority;
    record_.path = request_.target;
    if (const auto* agent = request_.fields.find(http::KnownField::kUserAgent)) {
      record_.user_agent = agent->value;
    }
    if (const auto* referer = request_.fields.find(http::KnownField::kReferer)) {
      record_.referer = referer->value;
    }
  }
  if (endpoint_ != nullptr) {
    record_.upstream = endpoint_->upstream_name();
    record_.upstream_address = endpoint_->address_text();
  }
  if (!log::write_access(worker_->channel, record_)) ++worker_->counters.access_records_dropped;
}

void Exchange::finish() {
  record_.bytes_in += request_body_.content_bytes();
  if (cancelled_ != log::Reason::kNone && record_.reason == log::Reason::kNone) {
    record_.reason = cancelled_;
  }
  count_response();
  write_log();
}

}  // namespace weir::proxy
