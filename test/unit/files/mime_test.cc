#include <weir/files/mime.h>

#include <catch2/catch_test_macros.hpp>

#include <array>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include <weir/base/prng.h>
#include <weir/base/text.h>

namespace weir::files {

namespace {

MimeTypes built(const MimeSettings& settings = {}) {
  auto types = MimeTypes::build(settings);
  REQUIRE(types.has_value());
  return std::move(*types);
}

std::string error_of(const MimeSettings& settings) {
  const auto types = MimeTypes::build(settings);
  REQUIRE_FALSE(types.has_value());
  return types.error();
}

}  // namespace

TEST_CASE("the built-in table has what the web needs") {
  const MimeTypes types = built();
  const std::pair<const char*, const char*> expected[] = {
      {"index.html", "text/html; charset=utf-8"},
      {"a.htm", "text/html; charset=utf-8"},
      {"a.css", "text/css; charset=utf-8"},
      {"a.js", "text/javascript; charset=utf-8"},
      {"a.mjs", "text/javascript; charset=utf-8"},
      {"a.json", "application/json"},
      {"a.js.map", "application/json"},
      {"a.webmanifest", "application/manifest+json"},
      {"a.wasm", "application/wasm"},
      {"a.xml", "application/xml; charset=utf-8"},
      {"feed.rss", "application/rss+xml; charset=utf-8"},
      {"feed.atom", "application/atom+xml; charset=utf-8"},
      {"a.txt", "text/plain; charset=utf-8"},
      {"a.svg", "image/svg+xml; charset=utf-8"},
      {"a.png", "image/png"},
      {"a.jpg", "image/jpeg"},
      {"a.jpeg", "image/jpeg"},
      {"a.avif", "image/avif"},
      {"a.webp", "image/webp"},
      {"favicon.ico", "image/vnd.microsoft.icon"},
      {"a.woff", "font/woff"},
      {"a.woff2", "font/woff2"},
      {"a.ttf", "font/ttf"},
      {"a.mp4", "video/mp4"},
      {"a.webm", "video/webm"},
      {"a.ts", "video/mp2t"},
      {"a.m3u8", "application/vnd.apple.mpegurl"},
      {"a.mpd", "application/dash+xml"},
      {"a.vtt", "text/vtt; charset=utf-8"},
      {"a.m4a", "audio/mp4"},
      {"a.mp3", "audio/mpeg"},
      {"a.opus", "audio/ogg"},
      {"a.flac", "audio/flac"},
      {"a.pdf", "application/pdf"},
      {"a.zip", "application/zip"},
      {"a.gz", "application/gzip"},
      {"a.zst", "application/zstd"},
  };
  for (const auto& [name, type] : expected) {
    INFO(name);
    CHECK(types.lookup(name) == type);
  }
  CHECK(types.extensions() > 80);
  CHECK(types.skipped_lines() == 0);
}

TEST_CASE("the extension is that of the last segment, in any case") {
  const MimeTypes types = built();
  CHECK(types.lookup("A.HTML") == "text/html; charset=utf-8");
  CHECK(types.lookup("/a/b.css/c.PnG") == "image/png");
  CHECK(types.lookup("a.tar.gz") == "application/gzip");
  CHECK(types.lookup("jquery.min.js") == "text/javascript; charset=utf-8");
  for (const char* name : {"", "/", "README", "a.", "a.unknown", ".html", "dir.html/file",
                           "a.html/", "..", ".", "a..", "html", "a.html ", "a.h\xfftml"}) {
    INFO(name);
    CHECK(types.lookup(name) == "application/octet-stream");
  }
  CHECK(types.lookup(".a.html") == "text/html; charset=utf-8");
  CHECK(types.lookup("a..html") == "text/html; charset=utf-8");
  CHECK(types.lookup("a." + std::string(10000, 'x')) == "application/octet-stream");
}

TEST_CASE("precompressed files have the type of what is inside") {
  const MimeTypes types = built();
  const auto inner = [&types](std::string_view path) {
    const MimeTypes::Inner found = types.lookup_inner(path);
    return std::string(found.type) + "|" + std::string(coding_name(found.coding));
  };
  CHECK(inner("a.css.br") == "text/css; charset=utf-8|br");
  CHECK(inner("a.css.gz") == "text/css; charset=utf-8|gzip");
  CHECK(inner("a.css.zst") == "text/css; charset=utf-8|zstd");
  CHECK(inner("d/a.svg.GZ") == "image/svg+xml; charset=utf-8|gzip");
  CHECK(inner("a.css") == "text/css; charset=utf-8|");
  CHECK(inner("a.gz") == "application/octet-stream|gzip");
  CHECK(inner(".gz") == "application/octet-stream|");
  CHECK(inner("d/.br") == "application/octet-stream|");
  CHECK(inner("") == "application/octet-stream|");
  CHECK(types.lookup("a.css.gz") == "application/gzip");  // the bytes as they are
}

TEST_CASE("a table in the format of mime.types") {
  const MimeTypes types = built({.table = "# comment\n"
                                          "\n"
                                          "text/x-one\t\t\tone\n"
                                          "application/two   two TOO\r\n"
                                          "application/none\n"
                                          "  text/x-three three # not this\n"
                                          "image/svg+xml svg\n"
                                          "text/x-late one2\n"
                                          "text/x-later one2\n"
                                          "model/x-last last"});
  CHECK(types.lookup("a.one") == "text/x-one; charset=utf-8");
  CHECK(types.lookup("a.two") == "application/two");
  CHECK(types.lookup("a.too") == "application/two");
  CHECK(types.lookup("a.three") == "text/x-three; charset=utf-8");
  CHECK(types.lookup("a.not") == "application/octet-stream");
  CHECK(types.lookup("a.one2") == "text/x-later; charset=utf-8");
  CHECK(types.lookup("a.last") == "model/x-last");
  CHECK(types.lookup("a.html") == "text/html; charset=utf-8");  // not in it: built in
  CHECK(types.skipped_lines() == 0);
}

TEST_CASE("lines that make no sense are skipped and counted") {
  const MimeTypes types = built({.table = "texthtml x1\n"
                                          "/x x2\n"
                                          "text/ x3\n"
                                          "te xt/html x4\n"
                                          "text/html; x5\n"
                                          "text/a/b x6\n"
                                          "text/\xff x7\n"
                                          "text/good good a/b ..x z.\n"
                                          "text/fine fine\n"});
  CHECK(types.skipped_lines() == 8);
  for (const char* name : {"a.x1", "a.x2", "a.x3", "a.x4", "a.x5", "a.x6", "a.x7"}) {
    CHECK(types.lookup(name) == "application/octet-stream");
  }
  CHECK(types.lookup("a.good") == "text/good; charset=utf-8");
  CHECK(types.lookup("a.fine") == "text/fine; charset=utf-8");
}

TEST_CASE("the table replaces built-in types, but for those that are wrong for the web") {
  const MimeTypes types = built({.table = "application/x-javascript js\n"
                                          "text/vnd.trolltech.linguist ts\n"
                                          "application/x-rss+xml rss\n"});
  CHECK(types.lookup("a.js") == "application/x-javascript");
  CHECK(types.lookup("a.ts") == "video/mp2t");
  CHECK(types.lookup("a.rss") == "application/rss+xml; charset=utf-8");
}

TEST_CASE("overrides come first") {
  const std::array<MimeOverride, 5> overrides{{{"ts", "text/typescript"},
                                               {".MD", "text/plain; charset=iso-8859-1"},
                                               {"new", "application/x-new;version=\"1; 2\""},
                                               {"tar.gz", "application/x-compressed-tar"},
                                               {"md", "text/x-markdown"}}};
  const MimeTypes types = built({.table = "text/a md new\n", .overrides = overrides});
  CHECK(types.lookup("a.ts") == "text/typescript; charset=utf-8");
  CHECK(types.lookup("a.new") == "application/x-new;version=\"1; 2\"");
  CHECK(types.lookup("a.md") == "text/x-markdown; charset=utf-8");  // the last
  CHECK(types.lookup("a.tar.gz") == "application/x-compressed-tar");
  CHECK(types.lookup("a.TAR.GZ") == "application/x-compressed-tar");
  CHECK(types.lookup(".tar.gz") == "application/gzip");
  CHECK(types.lookup("x.y.tar.gz") == "application/x-compressed-tar");
  CHECK(types.lookup("a.css.gz") == "application/gzip");
  const std::array<MimeOverride, 1> latin{{{"txt", "text/plain; Charset=iso-8859-1"}}};
  CHECK(built({.overrides = latin}).lookup("a.txt") == "text/plain; Charset=iso-8859-1");
}

TEST_CASE("charset and default type are settings") {
  const MimeTypes plain = built({.charset = ""});
  CHECK(plain.lookup("a.html") == "text/html");
  CHECK(plain.lookup("a.svg") == "image/svg+xml");
  const MimeTypes latin = built({.default_type = "text/plain", .charset = "iso-8859-15"});
  CHECK(latin.lookup("a.html") == "text/html; charset=iso-8859-15");
  CHECK(latin.lookup("README") == "text/plain; charset=iso-8859-15");
  CHECK(latin.lookup("a.json") == "application/json");
  CHECK(built({.default_type = ""}).lookup("README").empty());
}

TEST_CASE("mistakes in the settings are said") {
  const auto with = [](MimeOverride override) {
    const std::array<MimeOverride, 1> overrides{override};
    return error_of({.overrides = overrides});
  };
  CHECK(with({"x", "html"}) == "'html', the type for x, is no content type (as text/plain is)");
  for (const char* type :
       {"", "/", "text/", "text/html;", "text/html;charset", "text/html;=x", "text/html; a=\"b",
        "text/html; a=b c", "text/html\r\nX: y", "text/html; a=\"b\"c", "text/html; a=\"\r\n\"",
        "text/html; a=", "text /html", "text/html, text/css"}) {
    INFO(type);
    CHECK(with({"x", type}).find("is no content type") != std::string::npos);
  }
  for (const char* extension : {"", ".", "..x", "a/b", "a b", "x.", "a.b.c", "\xff", "a\n"}) {
    INFO(extension);
    CHECK(with({extension, "text/plain"}).find("is no file name extension") != std::string::npos);
  }
  CHECK(with({std::string(41, 'x'), "text/plain"}).find("extension") != std::string::npos);
  CHECK(error_of({.default_type = "text"}).find("default type 'text'") != std::string::npos);
  CHECK(error_of({.charset = "utf 8"}).find("charset") != std::string::npos);
  const std::string large(kMimeTableBytesMax + 1, '\n');
  CHECK(error_of({.table = large}).find("4 MiB") != std::string::npos);
}

TEST_CASE("types can be moved") {
  MimeTypes types = built();
  const MimeTypes moved = std::move(types);
  CHECK(moved.lookup("a.html") == "text/html; charset=utf-8");
}

TEST_CASE("the table of this machine") {
  std::ifstream file("/etc/mime.types");
  REQUIRE(file.good());  // media-types, which tools/setup installs
  const std::string table{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const MimeTypes types = built({.table = table});
  CHECK(types.skipped_lines() == 0);
  CHECK(types.extensions() > built().extensions());
  for (const char* name : {"a.html", "a.css", "a.js", "a.mjs", "a.json", "a.wasm", "a.png",
                           "a.woff2", "a.mp4", "a.ts", "a.svg"}) {
    INFO(name);
    CHECK(types.lookup(name) == built().lookup(name));
  }
}

TEST_CASE("random tables never break anything") {
  base::Prng prng(6838);
  constexpr std::string_view kAlphabet = "text/html css \t\n\n\r#.;=\"\\/\xff\0ab";
  for (int i = 0; i < 300; ++i) {
    std::string table;
    const size_t size = prng.below(3000);
    for (size_t at = 0; at < size; ++at) table += kAlphabet[prng.below(kAlphabet.size())];
    const MimeTypes types = built({.table = table});
    for (int name = 0; name < 50; ++name) {
      std::string path;
      const size_t length = prng.below(20);
      for (size_t at = 0; at < length; ++at) path += kAlphabet[prng.below(kAlphabet.size())];
      const std::string_view type = types.lookup(path);
      CHECK(type.find('/') != std::string_view::npos);
      CHECK(type.find_first_of("\r\n") == std::string_view::npos);
      CHECK_FALSE(types.lookup_inner(path).type.empty());
    }
  }
}

}  // namespace weir::files
