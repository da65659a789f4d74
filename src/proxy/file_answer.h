// What is found for a request of a file, on its way to the client. In the frame of the exchange's
// coroutine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <weir/files/coding.h>
#include <weir/files/range.h>
#include <weir/files/store.h>

namespace weir::proxy {

struct FileAnswer {
  files::FileRef file;    // the one whose bytes are sent
  std::string path;       // of the original, relative to the root; "." is the root itself
  std::string_view type;  // Content-Type; of the settings, which the pin keeps
  files::Coding coding = files::Coding::kIdentity;
  bool vary = false;
  bool must_be_directory = false;
  bool lacks_slash = false;  // a directory that the client is to ask for by its full name
  uint16_t status = 200;     // of an error page, else 200
  std::string_view fields;   // more lines for its head
  files::BodyPlan body;      // without pieces: the whole file
};

// Why a file is not sent.
struct FileRefusal {
  uint16_t status;
  std::string_view fields{};  // lines for the head, until the answer is sent
};

enum class FileSent : uint8_t {
  kAnswered,    // or broken off; the exchange knows
  kUnreadable,  // nothing was sent: the disk failed
  kChanged,     // nothing was sent: the file is not what its stamp says any more, and is `doubtful`
};

}  // namespace weir::proxy
