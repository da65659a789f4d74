// Which faults a simulated run injects, and how often. Plain values, chosen from the seed before
// the run. One thread; owned by the simulated kernel. A probability of 0 turns the class off
// entirely.
#pragma once

#include <cstdint>

namespace weir::sim {

// Percent of the occasions named.
struct Faults {
  uint8_t short_send = 0;     // sends that take only part of what they could
  uint8_t short_recv = 0;     // receives that give only part of what is there
  uint8_t reorder = 0;        // rounds whose completions come in a random order
  uint8_t delay = 0;          // completions that come later than they could (up to 2 ms)
  uint8_t small_batch = 0;    // enters that deliver one completion although more are ready
  uint8_t spurious_wake = 0;  // waits that end early with nothing
  uint8_t multishot_end = 0;  // multishot completions that come without F_MORE
  uint8_t no_buffers = 0;     // receives told ENOBUFS although a buffer was left (never unless
                              // another one is out, whose return re-arms the receiver)
  uint8_t no_files = 0;       // accepts told EMFILE (the connection stays queued)
  uint8_t cancel_race = 0;    // cancels that lose, or seem to: every answer with every outcome
  uint8_t refuse = 0;         // connects to a living origin that are refused
  uint8_t connect_hang = 0;   // connects that get no answer (ETIMEDOUT after 127 s)
  uint8_t reset = 0;          // connections with a scripted peer that are reset at a random moment
  uint8_t vanish = 0;         // scripted peers that fall silent at a random moment, without a FIN
  uint8_t slow_peer = 0;      // scripted peers that read and write in small pieces
  uint8_t small_socket = 0;   // connections whose socket buffers hold less than 4 KiB
  uint8_t clock_jump = 0;     // waits that end late (the process was stopped for up to 3 s), and
                              // steps of the wall clock in either direction
  uint8_t full_queue = 0;     // rings with a submission queue of 4 entries
  uint8_t slow_connect = 0;   // connects to a living origin that take up to half a second

  static Faults none() noexcept { return {}; }
  // Each class is on in about a third of the seeds, at one of several rates.
  static Faults swarm(uint64_t seed) noexcept;
};

// How often each fault was really injected; tests use it to prove that a class is exercised.
struct FaultCounts {
  uint64_t short_send = 0;
  uint64_t short_recv = 0;
  uint64_t reorder = 0;
  uint64_t delay = 0;
  uint64_t small_batch = 0;
  uint64_t spurious_wake = 0;
  uint64_t multishot_end = 0;
  uint64_t no_buffers = 0;
  uint64_t no_files = 0;
  uint64_t cancel_race = 0;
  uint64_t refuse = 0;
  uint64_t connect_hang = 0;
  uint64_t reset = 0;
  uint64_t vanish = 0;
  uint64_t slow_peer = 0;
  uint64_t small_socket = 0;
  uint64_t clock_jump = 0;
  uint64_t full_queue = 0;
  uint64_t slow_connect = 0;
};

}  // namespace weir::sim
