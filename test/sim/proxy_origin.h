// A scripted origin server: reads what weir sends, checks that it is byte-true, and answers each
// request as its plan says, with whatever trouble that holds. What it finds wrong goes to
// Run::violation. Lives as long as the kernel.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include <sim/peer.h>
#include <sim/proxy_run.h>

namespace weir::sim {

class OriginServer {
 public:
  OriginServer(Run& run, size_t upstream, std::string address);
  OriginServer(const OriginServer&) = delete;
  OriginServer& operator=(const OriginServer&) = delete;

  void up();
  void down();
  [[nodiscard]] bool is_up() const { return up_; }
  [[nodiscard]] const std::string& address() const { return address_; }
  // To be called when the run is over.
  void close_books();

 private:
  struct Piece {
    uint64_t delay_ns = 0;
    std::string bytes;
  };
  // One connection from weir.
  struct Link {
    Link(OriginServer& of, Peer& at) : origin(of), peer(at) {}
    OriginServer& origin;
    Peer& peer;
    WireReader reader{WireReader::Side::kRequests};
    Request* request = nullptr;
    Trouble trouble = Trouble::kNone;
    bool answering = false;
    bool answered = false;  // to the last byte
    bool over = false;
    bool stalls = false;       // it has not read, for a while: nothing is noticed in time
    uint64_t begun_at_ns = 0;  // the present exchange
    std::deque<Piece> outbox;
    bool pumping = false;
    uint64_t exchanges = 0;
  };

  void accept(Peer& peer);
  void read(Link& link);
  void begin(Link& link);
  void check_head(const Link& link);
  void check_body(const Link& link, bool whole);
  void request_done(Link& link);
  void answer(Link& link);
  [[nodiscard]] std::string write_answer(const Link& link);
  [[nodiscard]] static std::string write_error(const Link& link);
  void cut(Link& link, std::string& wire) const;
  void pump(Link& link);
  void answer_done(Link& link);
  void make_trouble(Link& link);
  void settle(Link& link);
  void end(Link& link);

  Run& run_;
  size_t upstream_;
  std::string address_;
  bool up_ = false;
  std::deque<std::unique_ptr<Link>> links_;
};

}  // namespace weir::sim
