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
  uint16_t status = 200;  // of an error page, else 200
  files::BodyPlan body;   // without pieces: the whole file
};

}  // namespace weir::proxy
