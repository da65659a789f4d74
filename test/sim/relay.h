// The program under test of the simulation's own tests: a small relay straight on Ring and sys,
// with everything that makes such programs hard (provided buffers, ENOBUFS, short sends, half
// close, deadlines by cancel, orderly end). One thread.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <weir/base/ip.h>
#include <weir/runtime/ring.h>

namespace relay {

struct Options {
  std::string listen = "127.0.0.1:8080";
  std::string upstream = "127.0.0.1:9000";
  uint32_t buffers = 8;
  uint32_t buffer_bytes = 512;
  uint64_t connect_timeout_ns = 5'000'000'000;
  uint64_t idle_timeout_ns = 30'000'000'000;
  bool multishot_recv = false;  // else one-shot with POLL_FIRST
};

class Relay {
 public:
  explicit Relay(const Options& options);
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;
  ~Relay();

  void turn();
  void stop();
  [[nodiscard]] bool drained() const;
  [[nodiscard]] uint64_t aborted() const { return aborted_; }
  [[nodiscard]] uint64_t finished() const { return finished_; }

 private:
  enum Kind : uint8_t { kAccept = 1, kConnect, kRecvUp, kSendUp, kRecvDown, kSendDown };
  struct Chunk {
    uint16_t buffer;
    uint32_t bytes;
  };
  struct Flow {
    int from = -1;
    int to = -1;
    std::vector<Chunk> chunks;  // received, not yet sent
    uint32_t sent = 0;          // of the first one
    bool receiving = false;
    bool sending = false;
    bool parked = false;
    bool ended = false;      // the end of the stream was read
    bool cancelled = false;  // a multishot receive that was told to stop for now
    bool done = false;
  };
  struct Session {
    uint64_t id = 0;
    int client = -1;
    int upstream = -1;
    Flow up;
    Flow down;
    bool connecting = false;
    bool closing = false;
    uint64_t deadline = 0;
    uint64_t started = 0;
  };

  io_uring_sqe* entry(uint64_t session, Kind kind);
  void arm_accept();
  void start(int fd);
  void receive(Session& session, Flow& flow);
  void send(Session& session, Flow& flow);
  void on_event(uint64_t user_data, int32_t result, uint32_t flags);
  void on_accept(int32_t result, uint32_t flags);
  void on_receive(Session& session, Flow& flow, int32_t result, uint32_t flags);
  void on_send(Session& session, Flow& flow, int32_t result);
  void on_end(Session& session, Flow& flow);
  void hold_back(Session& session, Flow& flow);
  void give_back(uint16_t buffer);
  void abort(Session& session);
  void reap_sessions();
  void cancel(uint64_t user_data);
  static bool busy(const Session& session);
  static uint64_t tag(uint64_t session, Kind kind) { return session << 8 | kind; }

  Options options_;
  std::unique_ptr<weir::runtime::Ring> ring_;
  int listener_ = -1;
  weir::base::SocketAddress upstream_;
  std::map<uint64_t, std::unique_ptr<Session>> sessions_;
  uint64_t next_session_ = 1;
  bool accepting_ = false;
  bool stopping_ = false;
  io_uring_buf_ring* memory_ = nullptr;
  std::vector<std::unique_ptr<char[]>> storage_;
  uint32_t out_ = 0;  // buffers not with the kernel
  uint64_t aborted_ = 0;
  uint64_t finished_ = 0;
};

}  // namespace relay
