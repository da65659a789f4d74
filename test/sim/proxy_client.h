// A scripted client of the proxy: makes the requests of its plan on one connection and checks each
// response as it arrives. What it finds wrong goes to Run::violation. Lives as long as the kernel.
#pragma once

#include <deque>
#include <string>

#include <sim/peer.h>
#include <sim/proxy_run.h>

namespace weir::sim {

class Client {
 public:
  Client(Run& run, size_t number, ClientPlan plan);
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void start();
  // Its connection is over, or it is gone.
  [[nodiscard]] bool done() const;
  // To be called when the run is over.
  void close_books();

 private:
  struct Piece {
    uint64_t delay_ns = 0;
    std::string bytes;
    Request* request = nullptr;
    bool last = false;
    bool awaits_continue = false;
  };

  void connect();
  void plan_departure();
  void leave();
  void enqueue(Request& request);
  void enqueue_cut(Request& request, const std::string& bytes, bool last);
  void pump();
  void send_piece();
  void release();
  void read();
  void take_message();
  void take_response(Request& request);
  void note_busy(Fate& fate);
  void check_response(const Request& request, bool local);
  void check_part() const;
  [[nodiscard]] bool is_error(const Request& request) const;
  [[nodiscard]] std::string body_of(const Request& request) const;
  void finish();
  void on_end();

  Run& run_;
  ClientFate& fate_;
  ClientPlan plan_;
  Peer* peer_ = nullptr;
  WireReader reader_{WireReader::Side::kResponses};
  std::deque<Piece> outbox_;
  bool pumping_ = false;
  bool released_ = false;  // a 100 came, or was waited for long enough
  bool awaiting_ = false;
  bool done_ = false;
  bool stopped_ = false;  // sends nothing more
  size_t begun_ = 0;      // requests put into the outbox
  size_t answered_ = 0;
  size_t received_ = 0;
  uint64_t interim_bytes_ = 0;
  std::string cookie_;  // of the last answer that had one
};

}  // namespace weir::sim
