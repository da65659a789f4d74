// Moves one body from one connection to another, with back-pressure: nothing more is read until
// what was read has been sent. Small bodies pass in the pool buffers in which they arrived; large
// ones (more than kDirectBytes to come, or of unknown length) in direct mode through the core's
// scratch, or, when they must be framed anew, through a block of this relay.
#pragma once

#include <cstdint>
#include <string>

#include <sys/uio.h>

#include <weir/net/transport.h>
#include <weir/proxy/worker.h>

#include "body_reader.h"

namespace weir::proxy {

enum class RelayEnd : uint8_t {
  kComplete,
  kSourceEnded,  // before the body was complete
  kSourceError,
  kSourceTimeout,
  kSourceMalformed,  // chunked framing lost; Relay::error_status, reason
  kTooLarge,         // more than bytes_max
  kSinkError,
  kSinkTimeout,
  kInterrupted,
};

enum class OutFraming : uint8_t {
  kRaw,  // Content-Length known, or until close
  kChunked,
  kDiscard,  // read and thrown away
};

struct Relay {
  Worker& worker;
  net::Transport& from;
  net::Transport& to;  // unused with kDiscard
  BodyReader& body;
  OutFraming out;
  uint32_t read_timeout_ms;
  uint32_t send_timeout_ms;
  uint64_t bytes_max = UINT64_MAX;  // of content
  std::string_view head{};          // sent before the first piece, in one message with it
  std::string_view input{};         // received already, comes before what `from` has
  std::string* retain = nullptr;    // keeps a copy of the content, for a retry ...
  size_t retain_max = 0;            // ... until it exceeds this; then it is cleared and retain null
  uint64_t splice_min = 0;          // splice from this much content to come; 0: never
  bool nothing_behind = false;      // a byte behind the body is a fault of `from`: it is looked for
  bool keep_trailers = true;        // false: some may be for this hop (http::connection_nominates)
  // Results.
  uint64_t bytes_sent = 0;  // to the sink, framing included
  bool lost_input = false;  // bytes had to be dropped unread: `from` cannot go on after it
  uint16_t error_status = 0;
  const char* reason = "";
  base::Error error{};
};

runtime::Task<RelayEnd> relay_body(Relay& relay);

}  // namespace weir::proxy
