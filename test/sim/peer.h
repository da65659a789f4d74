// A scripted client or origin: the end of a simulated connection that the test holds, outside the
// program under test. Owned by the simulated kernel for the whole run; used on the test's thread
// only. Its callbacks run inside Ring::submit_and_wait (or Kernel::run_until) and must not touch
// the program under test.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace weir::sim {

struct Stream;
class World;

class Peer {
 public:
  // Any may be empty. on_end is called at the peer's FIN and at a failure (see error()).
  std::function<void(Peer&)> on_connect;
  std::function<void(Peer&)> on_data;
  std::function<void(Peer&)> on_end;

  Peer(World& world, uint64_t id) noexcept : world_(world), id_(id) {}
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // Queues without limit; goes out as the connection takes it.
  void send(std::string_view bytes);
  // FIN, after all that is queued has gone out.
  void shutdown_write();
  // close(2), after all that is queued has gone out. What arrives from then on is answered with
  // RST.
  void close();
  // RST, at once; what is queued is lost.
  void reset();
  // Reads nothing until resume(): the sender's buffers fill up. What it sends still goes out.
  void stall();
  void resume();
  // From now on nothing comes from it and nothing reaches it, not even a FIN or RST.
  void vanish();
  // Sends and reads at most `bytes` each `interval_ns`.
  void trickle(size_t bytes, uint64_t interval_ns);

  [[nodiscard]] uint64_t id() const noexcept { return id_; }
  [[nodiscard]] bool connected() const noexcept { return connected_; }
  [[nodiscard]] bool eof() const noexcept { return eof_; }
  // 0, or the errno of a failed connect (ECONNREFUSED, ETIMEDOUT) or broken connection
  // (ECONNRESET).
  [[nodiscard]] int error() const noexcept { return error_; }
  [[nodiscard]] bool closed() const noexcept { return closed_; }
  // No more will happen here: end of stream, failure, or closed by the script.
  [[nodiscard]] bool ended() const noexcept { return eof_ || error_ != 0 || closed_ || vanished_; }
  [[nodiscard]] bool vanished() const noexcept { return vanished_; }
  // The kernel broke this connection by an injected fault: no answer can be demanded on it.
  [[nodiscard]] bool disturbed() const noexcept { return disturbed_; }
  [[nodiscard]] size_t unsent() const noexcept { return output_.size() - output_head_; }

  [[nodiscard]] const std::string& received() const noexcept { return received_; }
  // Empties received().
  std::string take() noexcept { return std::exchange(received_, {}); }

 private:
  friend class World;
  void attach(Stream& stream);
  void fail(int error);
  void pump_out();
  void pump_in();
  void pump_later();
  void finish_output();

  World& world_;
  uint64_t id_;
  Stream* stream_ = nullptr;
  std::string output_;
  size_t output_head_ = 0;
  std::string received_;
  size_t piece_ = 0;  // 0: no limit
  uint64_t interval_ns_ = 0;
  int error_ = 0;
  bool connected_ = false;
  bool fin_wanted_ = false;
  bool close_wanted_ = false;
  bool fin_sent_ = false;
  bool closed_ = false;
  bool eof_ = false;
  bool stalled_ = false;
  bool vanished_ = false;
  bool disturbed_ = false;
  bool pump_scheduled_ = false;
};

}  // namespace weir::sim
