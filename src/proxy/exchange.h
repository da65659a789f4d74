// One request and its response: everything that lives as long as they do. Taken from the worker's
// spare ones when a request head begins to arrive, given back when the response has been sent and
// logged. Only the serving coroutine and its one child (the request body's relay) touch it, on
// their core's thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <weir/http/h1/parser.h>
#include <weir/http/head.h>
#include <weir/log/access.h>
#include <weir/net/transport.h>
#include <weir/proxy/generation.h>
#include <weir/proxy/out_buffer.h>
#include <weir/runtime/task_group.h>
#include <weir/upstream/registry.h>

#include "body_reader.h"
#include "client_connection.h"
#include "file_answer.h"
#include "relay_body.h"
#include "tunnel.h"

namespace weir::proxy {

// What the connection does after an exchange.
enum class After : uint8_t { kKeepAlive, kClose, kLinger, kReset };

// By what a try at a server has failed, as the policy for retries tells them apart.
enum class TryFailure : uint8_t { kNone, kConnect, kReset, kTimeout, kStatus, kOther };
TryFailure failure_of(base::Error error) noexcept;
// Requests that may be repeated.
bool idempotent(http::Method method) noexcept;

struct Rival;

class Exchange {
 public:
  Exchange() noexcept = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  // Serves one request, from the first byte of its head to the log record.
  runtime::Task<After> serve(ClientConnection& connection, uint64_t head_deadline_ms);
  // Makes serve() end soon. From outside its coroutine, same thread.
  void cancel(log::Reason reason) noexcept;

  std::unique_ptr<Exchange> next_spare;  // the worker's chain of spare ones

 private:
  enum class HeadRead : uint8_t { kComplete, kRefused, kGone };
  enum class Attempt : uint8_t { kDone, kRetryFresh, kRetryOther, kFailed };

  // request_head.cc
  runtime::Task<HeadRead> read_request_head(uint64_t deadline_ms);
  bool parse_in_place(HeadRead& outcome);
  HeadRead refuse_head(const http::h1::ParseResult& parsed) noexcept;
  bool resolve_target() noexcept;  // host and path in the form routes are matched in
  void prepare(ClientConnection& connection);
  void clear() noexcept;

  // dispatch.cc
  runtime::Task<> dispatch();
  runtime::Task<> respond_locally(const route::Route& route);
  runtime::Task<> reply(uint16_t status, log::Reason reason);
  runtime::Task<> reply_with(uint16_t status, std::string_view field_lines);
  runtime::Task<> send_reply(uint16_t status, std::string_view field_lines, std::string_view body);
  runtime::Task<bool> settle_request_body();
  void note_body_fault(RelayEnd end, const Relay& relay) noexcept;
  runtime::Task<> refuse_body();

  // serve_file.cc
  runtime::Task<> serve_file(const route::Route& route);
  bool resolve_file(const route::Route& route, FileAnswer& answer) const;
  runtime::Task<uint16_t> locate_file(const route::Route& route, FileAnswer& answer);
  runtime::Task<base::Result<void>> find_file(const route::FileRoute& rules, FileAnswer& answer);
  runtime::Task<base::Result<files::FileRef>> open_file(files::Store& store, std::string_view root,
                                                        std::string_view path,
                                                        files::LinkRule links);
  runtime::Task<> find_variants(const route::FileRoute& rules, const FileAnswer& answer);
  void choose_variant(FileAnswer& answer) const;
  runtime::Task<FileSent> answer_file(const route::FileRoute& rules, FileAnswer& answer,
                                      std::string_view route_path);
  runtime::Task<> redirect_to_slash();
  runtime::Task<> refuse_file(const route::FileRoute& rules, FileRefusal refusal);
  void write_file_head(base::ByteWriter& out, const route::FileRoute& rules,
                       const FileAnswer& answer, std::string_view tag) noexcept;
  void append_persistence(base::ByteWriter& out) const noexcept;
  // serve_listing.cc
  runtime::Task<> list_directory(const route::FileRoute& rules, const FileAnswer& answer,
                                 std::string_view route_path);
  // send_file.cc
  runtime::Task<FileSent> send_file_answer(const route::FileRoute& rules, FileAnswer& answer,
                                           std::string_view tag);
  runtime::Task<bool> read_behind_head(files::OpenFile& file, files::BodyPiece piece);
  runtime::Task<bool> warm_pages(files::OpenFile& file, uint64_t offset, size_t bytes);
  runtime::Task<bool> send_pieces(const FileAnswer& answer,
                                  std::span<const files::BodyPiece> pieces, uint32_t timeout_ms);
  runtime::Task<bool> send_bytes(std::string_view head, std::string_view body, uint32_t timeout_ms);
  runtime::Task<bool> send_stretch(files::OpenFile& file, files::BodyPiece piece,
                                   std::string_view head, uint32_t timeout_ms);
  runtime::Task<bool> move_stretch(files::OpenFile& file, files::BodyPiece piece,
                                   std::string_view head, uint32_t timeout_ms);
  ssize_t send_some(files::OpenFile& file, uint64_t offset, size_t bytes) noexcept;
  ssize_t send_copied(files::OpenFile& file, uint64_t offset, size_t bytes) noexcept;
  bool file_failed(files::OpenFile& file) noexcept;

  // choose_server.cc
  [[nodiscard]] uint32_t now_s() const noexcept;  // since 1970
  uint64_t hash_client() noexcept;
  uint64_t balance_key(const route::BalanceSpec& balance) noexcept;
  void read_sticky_cookie(upstream::Pool& pool, std::string_view name) noexcept;
  std::string sticky_line();
  [[nodiscard]] upstream::Pick pick() const noexcept;
  bool choose_server(const route::UpstreamSpec& spec) noexcept;
  bool take_turn(upstream::Turn turn) noexcept;
  [[gnu::noinline]] runtime::Task<bool> wait_for_server(const route::UpstreamSpec& spec);

  // try_servers.cc
  runtime::Task<> try_servers(const route::UpstreamSpec& spec);
  void begin_tries(const route::UpstreamSpec& spec) noexcept;
  void begin_try() noexcept;
  [[nodiscard]] uint64_t try_deadline_ms() const noexcept;
  void restart_clocks() noexcept;
  [[nodiscard]] bool may_try_more() const noexcept;
  [[nodiscard]] bool may_try_again(TryFailure failure) const noexcept;
  bool next_server(const route::UpstreamSpec& spec) noexcept;
  void judge_turn() noexcept;
  runtime::Task<base::Result<std::unique_ptr<upstream::Connection>>> lease(
      const route::UpstreamSpec& spec, bool fresh);
  void note_connect_failure(const upstream::Endpoint& endpoint) noexcept;
  runtime::Task<> answer_failure();

  // rival.cc
  [[gnu::noinline]] runtime::Task<base::Result<std::unique_ptr<upstream::Connection>>> race_connect(
      bool fresh, uint32_t group, uint32_t head_start_ms);
  runtime::Task<> run_connect_race(Rival& rival, uint32_t group);
  bool choose_rival(Rival& rival, uint32_t group) noexcept;
  void note_unreached(Rival& rival, const base::Error& error) noexcept;
  [[nodiscard]] bool may_hedge() const noexcept;
  [[gnu::noinline]] runtime::Task<> hedge();
  runtime::Task<> run_hedge(Rival& rival);
  void take_over(Rival& rival) noexcept;
  void stop_rival() noexcept;

  // http_proxy.cc
  runtime::Task<> proxy(const route::Route& route);
  void prepare_request(const route::Route& route, const route::UpstreamSpec& spec);
  runtime::Task<Attempt> attempt(std::unique_ptr<upstream::Connection> leased);
  runtime::Task<base::Result<void>> send_request(net::Transport& origin);
  runtime::Task<> relay_request_body();
  runtime::Task<> end_attempt(bool reusable);
  [[nodiscard]] bool may_repeat() const noexcept;
  [[nodiscard]] bool may_retry_stale() const noexcept;
  void watch_client() noexcept;
  void unwatch_client() noexcept;

  // http_response.cc
  runtime::Task<Attempt> read_response();
  http::h1::ParseResult parse_response(net::Transport& origin);
  Attempt response_malformed(const char* reason) noexcept;
  Attempt response_failed(net::ReadEvent event) noexcept;
  runtime::Task<bool> pass_interim();
  [[nodiscard]] uint64_t response_deadline_ms() const noexcept;
  bool wants_other_answer() noexcept;
  runtime::Task<Attempt> answer();
  runtime::Task<bool> send_response(bool chunked);
  runtime::Task<bool> send_from_scratch();
  runtime::Task<bool> relay_response(bool chunked, std::string_view head, std::string_view input);
  void consume_response_head() noexcept;
  void put_scratch_aside();
  void release_origin() noexcept;
  void give_back_origin() noexcept;
  void client_failed(bool timed_out) noexcept;

  // open_tunnel.cc
  bool choose_upgrade(const route::Route& route) noexcept;
  runtime::Task<Attempt> switch_protocols();
  runtime::Task<> connect(const route::Route* route);
  runtime::Task<Attempt> answer_connect(std::unique_ptr<upstream::Connection> leased);
  runtime::Task<> join_origin(std::string_view early);
  void keep_for_log();
  void note_tunnel_end(TunnelEnd end) noexcept;

  // finish.cc
  void finish();
  void count_response() noexcept;
  void write_log() noexcept;

  Worker* worker_ = nullptr;
  ClientConnection* client_ = nullptr;
  GenerationReader::Pin pin_;

  // Request.
  http::RequestHead request_;
  runtime::BufferRef head_buffer_;  // where the views of request_ point, or
  std::string head_text_;           // a head that came in pieces
  std::string path_storage_;        // the normalised path, when it differs from the received one
  std::string_view path_;
  char host_storage_[256];
  std::string_view host_;     // lower case, no port, no trailing dot
  std::string_view upgrade_;  // the protocol that the origin is offered; of request_
  bool head_known_ = false;   // request_ is complete: its views may be logged
  BodyReader request_body_;
  bool request_body_failed_ = false;
  std::string retained_;  // content already sent, for a retry on a fresh connection
  bool replayable_ = true;
  uint64_t body_bytes_max_ = UINT64_MAX;
  RelayEnd request_relay_end_ = RelayEnd::kComplete;
  uint16_t request_error_status_ = 0;

  // Upstream.
  uint32_t body_timeout_ms_ = 0;  // of the client; the relay may start after the pin was dropped
  uint64_t splice_min_ = 0;
  uint32_t read_timeout_ms_ = 0;
  uint32_t response_timeout_ms_ = 0;
  uint32_t origin_send_timeout_ms_ = 0;
  OutBuffer request_out_;
  std::unique_ptr<upstream::Connection> origin_;
  upstream::Endpoint* endpoint_ = nullptr;  // held; the last one chosen
  upstream::Turn turn_;                     // while the request counts as the server's
  upstream::Turn next_turn_;                // of the server that is asked after this one
  upstream::WaitHandle wait_;
  Rival* rival_ = nullptr;  // while there is a second try beside the first
  // The policy, of the pinned routes: until the answer has begun.
  const route::RetrySpec* retry_ = nullptr;
  const route::StickySpec* sticky_ = nullptr;  // null: no sticky sessions
  uint32_t upstream_id_ = 0;
  uint32_t servers_ = 0;  // that the upstream had
  uint32_t tried_count_ = 0;
  std::array<uint64_t, route::kTriesMax> tried_;  // identities
  uint64_t balance_key_ = 0;
  uint64_t sticky_tag_ = 0;  // of the server that the client's cookie names; 0: none
  uint64_t try_begin_ms_ = 0;
  uint64_t total_deadline_ms_ = UINT64_MAX;
  upstream::NoServer missing_ = upstream::NoServer::kNone;
  TryFailure failure_ = TryFailure::kNone;  // of this try
  bool connects_only_ = true;               // no try has failed by anything else
  bool sent_once_ = false;                  // some of the request may have reached a server
  bool hedged_ = false;                     // this try: another server was asked beside it
  upstream::AcquireHandle acquire_;
  runtime::TaskGroup children_;
  http::ResponseHead response_;
  BodyReader response_body_;
  std::string response_text_;       // a response head that came in pieces
  size_t response_head_bytes_ = 0;  // of it in the origin's front buffer
  // In direct mode: what was received into the core's scratch and not used yet. Never kept across a
  // suspension: the scratch is everybody's.
  std::string_view scratch_input_;
  std::string scratch_aside_;   // where it is copied to before one
  bool response_seen_ = false;  // a byte of the response was received
  bool origin_reusable_ = false;
  base::Error upstream_error_{};
  bool expects_ = false;  // the client still waits for 100 (Continue)

  Tunnel* tunnel_ = nullptr;  // while it lasts

  // Response to the client.
  OutBuffer out_;
  bool answered_ = false;  // the final head was (at least partly) sent
  bool broken_ = false;    // the response cannot be completed: the connection must end
  bool keep_alive_ = false;
  bool keep_trailers_ = true;     // of the response
  bool close_delimited_ = false;  // the client finds the end of the body by our close

  // Cancellation.
  log::Reason cancelled_ = log::Reason::kNone;
  struct GraceTimer : runtime::Timer {
    GraceTimer() noexcept : Timer(&Exchange::on_grace_over) {}
    Exchange* exchange = nullptr;
    uint64_t moved_bytes = 0;  // of the response, when the timer was armed
  };
  void arm_grace() noexcept;
  static void on_grace_over(runtime::Timer& timer) noexcept;
  static void on_client_end(void* context, bool failed) noexcept;
  GraceTimer grace_;

  // Log.
  log::AccessRecord record_;
  uint64_t start_ns_ = 0;
  uint64_t upstream_start_ns_ = 0;
  uint64_t request_end_ms_ = 0;  // when the request was sent to its end (or that was given up)
};

}  // namespace weir::proxy
