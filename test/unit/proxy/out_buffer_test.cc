#include <cstring>
#include <string>
#include <vector>

#include <weir/proxy/out_buffer.h>

#include "../runtime/engine.h"

using namespace weir;
using proxy::OutBuffer;
using runtime::test::Engine;

namespace {

int fill(OutBuffer& out, runtime::BufferPool& pool, const std::string& text) {
  int calls = 0;
  out.fill(pool, [&](base::ByteWriter& writer) {
    ++calls;
    writer.append(text);
  });
  return calls;
}

}  // namespace

TEST_CASE("what fits is in a pool buffer, written once") {
  Engine engine;
  OutBuffer out;
  CHECK(fill(out, engine->buffers(), "hello") == 1);
  CHECK(out.view() == "hello");
  CHECK(engine->buffers().in_use() == 1);
  CHECK(out.room() == engine->buffers().size() - 5);
  out.append(" world");
  CHECK(out.view() == "hello world");
  CHECK(fill(out, engine->buffers(), "again") == 1);
  CHECK(out.view() == "again");
  CHECK(engine->buffers().in_use() == 1);
  out.reset();
  CHECK(engine->buffers().in_use() == 0);
  CHECK(out.size() == 0);
  CHECK(out.room() == 0);
}

TEST_CASE("it fills a buffer to the last byte, and one byte more is on the heap") {
  Engine engine;
  OutBuffer out;
  const std::string whole(engine->buffers().size(), 'x');
  CHECK(fill(out, engine->buffers(), whole) == 1);
  CHECK(out.view() == whole);
  CHECK(out.room() == 0);
  out.append({});
  CHECK(fill(out, engine->buffers(), whole + "y") == 2);
  CHECK(out.view() == whole + "y");
  CHECK(engine->buffers().in_use() == 0);
}

TEST_CASE("large and small in turn, always the last one's bytes") {
  Engine engine;
  OutBuffer out;
  for (const size_t bytes : {10u, 100'000u, 20u, 5000u, 4096u, 50'000u, 4097u, 1u}) {
    const std::string text(bytes, static_cast<char>('a' + bytes % 26));
    fill(out, engine->buffers(), text);
    CHECK(out.view() == text);
    CHECK(engine->buffers().in_use() <= 1);
  }
}

TEST_CASE("without a pool buffer the heap does, and the pool again when there is one") {
  Engine engine({.buffers = 80, .ring_entries = 64});
  std::vector<uint16_t> held;
  while (const auto id = engine->buffers().allocate()) held.push_back(*id);
  OutBuffer out;
  CHECK(fill(out, engine->buffers(), "hello") == 1);
  CHECK(out.view() == "hello");
  CHECK(fill(out, engine->buffers(), std::string(9000, 'z')) == 2);
  CHECK(out.size() == 9000);
  for (const uint16_t id : held) engine->buffers().release(id);
  CHECK(fill(out, engine->buffers(), "back") == 1);
  CHECK(out.view() == "back");
  CHECK(engine->buffers().in_use() == 1);
}
