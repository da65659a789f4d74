#include <weir/files/file_path.h>

#include <catch2/catch_test_macros.hpp>

#include <array>
#include <string>
#include <vector>

#include <weir/base/prng.h>
#include <weir/http/uri.h>

namespace weir::files {

namespace {

constexpr FilePathRules kHiddenToo{.allow_hidden = true};

using Scratch = std::array<char, kFilePathBytesMax + 1>;

// The path below the root ('/' at its end when it must be a directory), or "!" and why not.
std::string resolved(std::string_view route, std::string_view path, FilePathRules rules = {}) {
  Scratch scratch;
  scratch.fill('#');
  const auto result = resolve_file_path(route, path, rules, scratch);
  if (!result) return "!" + std::string(refusal_text(result.error()));
  REQUIRE(result->path.data()[result->path.size()] == '\0');
  return std::string(result->path) + (result->must_be_directory ? "/" : "");
}

bool refused(PathRefusal why, std::string_view path, FilePathRules rules = {}) {
  INFO(path);
  return resolved("", path, rules) == "!" + std::string(refusal_text(why));
}

// Whatever a resolved path is: it must be harmless by its text.
bool is_harmless(std::string_view path, FilePathRules rules) {
  if (path == "." || path == "./") return true;
  if (path.ends_with('/')) path.remove_suffix(1);
  if (path.empty() || path.size() > kFilePathBytesMax) return false;
  for (;;) {
    const std::string_view name = path.substr(0, path.find('/'));
    if (name.empty() || name == "." || name == ".." || name.size() > kNameBytesMax) return false;
    if (name[0] == '.' && name != ".well-known" && !rules.allow_hidden) return false;
    for (char c : name) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\') return false;
    }
    if (name.size() == path.size()) return true;
    path.remove_prefix(name.size() + 1);
  }
}

}  // namespace

TEST_CASE("the route's prefix is taken off, the rest joined") {
  CHECK(resolved("/static", "/static/a.css") == "a.css");
  CHECK(resolved("/static", "/static/a/b/c.css") == "a/b/c.css");
  CHECK(resolved("/static", "/static/a/") == "a/");
  CHECK(resolved("/static", "/static/") == "./");
  CHECK(resolved("/static", "/static") == ".");
  CHECK(resolved("/static/", "/static/") == "./");  // an exact route keeps its slash
  CHECK(resolved("/static/", "/static/x") == "x");
  CHECK(resolved("", "/") == "./");
  CHECK(resolved("/", "/a") == "a");
  CHECK(resolved("", "/a/b") == "a/b");
  CHECK(resolved("/a%20b", "/a%20b/c") == "c");
}

TEST_CASE("a path that is not below the route") {
  for (const char* path : {"/", "/stati", "/staticx", "/staticx/a", "/Static/a", "static/a", "",
                           "*", "/static%2Fa", "//static/a"}) {
    INFO(path);
    CHECK(resolved("/static", path) == "!" + std::string(refusal_text(PathRefusal::kOutsideRoute)));
  }
  CHECK(resolved("", "*") == "!" + std::string(refusal_text(PathRefusal::kOutsideRoute)));
  CHECK(resolved("", "") == "!" + std::string(refusal_text(PathRefusal::kOutsideRoute)));
}

TEST_CASE("escapes are decoded once") {
  CHECK(resolved("", "/a%20b") == "a b");
  CHECK(resolved("", "/%E2%82%AC.txt") == "\xe2\x82\xac.txt");
  CHECK(resolved("", "/%e2%82%ac.txt") == "\xe2\x82\xac.txt");
  CHECK(resolved("", "/%FF%FE") == "\xff\xfe");  // any bytes may be a name
  CHECK(resolved("", "/100%25") == "100%");
  CHECK(resolved("", "/%252e%252e") == "%2e%2e");  // a name like others
  CHECK(resolved("", "/%252Fetc") == "%2Fetc");
  CHECK(resolved("", "/a%3Fb%23c%2Bd+e") == "a?b#c+d+e");
  CHECK(resolved("", "/a;b=c,d:e@f") == "a;b=c,d:e@f");
  CHECK(resolved("", "/a..b/c..") == "a..b/c..");
  CHECK(resolved("", "/%22%3C%3E%7C%2A") == "\"<>|*");
}

TEST_CASE("refusals") {
  CHECK(refused(PathRefusal::kBadEscape, "/%"));
  CHECK(refused(PathRefusal::kBadEscape, "/a%2"));
  CHECK(refused(PathRefusal::kBadEscape, "/a%2/b"));
  CHECK(refused(PathRefusal::kBadEscape, "/%zz"));
  CHECK(refused(PathRefusal::kBadEscape, "/%u002e"));
  CHECK(refused(PathRefusal::kBadByte, "/a%00"));
  CHECK(refused(PathRefusal::kBadByte, "/a%00.html"));
  CHECK(refused(PathRefusal::kBadByte, "/a%0A"));
  CHECK(refused(PathRefusal::kBadByte, "/a%7F"));
  CHECK(refused(PathRefusal::kBadByte, std::string_view("/a\0b", 4)));
  CHECK(refused(PathRefusal::kBadByte, "/a\nb"));
  CHECK(refused(PathRefusal::kBadByte, "/a?b"));
  CHECK(refused(PathRefusal::kBadByte, "/a#b"));
  CHECK(refused(PathRefusal::kEscapedSlash, "/a%2Fb"));
  CHECK(refused(PathRefusal::kEscapedSlash, "/a%2fb"));
  CHECK(refused(PathRefusal::kEscapedSlash, "/%2F"));
  CHECK(refused(PathRefusal::kBackslash, "/a%5Cb"));
  CHECK(refused(PathRefusal::kBackslash, "/a\\b"));
  CHECK(refused(PathRefusal::kEmptySegment, "//"));
  CHECK(refused(PathRefusal::kEmptySegment, "/a//b"));
  CHECK(refused(PathRefusal::kEmptySegment, "/a//"));
  CHECK(refused(PathRefusal::kEmptySegment, "//etc/passwd"));
  CHECK(refused(PathRefusal::kDotSegment, "/.", kHiddenToo));
  CHECK(refused(PathRefusal::kDotSegment, "/..", kHiddenToo));
  CHECK(refused(PathRefusal::kDotSegment, "/a/../b", kHiddenToo));
  CHECK(refused(PathRefusal::kDotSegment, "/%2e%2e/b", kHiddenToo));
  CHECK(refused(PathRefusal::kDotSegment, "/a/%2e/"));
  CHECK(refused(PathRefusal::kOverlong, "/%C0%AE%C0%AE/x"));
  CHECK(refused(PathRefusal::kOverlong, "/%E0%80%AF", kHiddenToo));
  CHECK(refused(PathRefusal::kOverlong, "/a%F0%80%80%AFb"));
}

TEST_CASE("hidden files") {
  for (const char* path :
       {"/.git/config", "/.env", "/a/.htaccess", "/a/.b/c", "/...", "/..a", "/%2egit/config",
        "/.well-knownx", "/.well-known/.x", "/.Well-Known/x"}) {
    INFO(path);
    CHECK(refused(PathRefusal::kHidden, path));
    CHECK_FALSE(resolved("", path, kHiddenToo).starts_with('!'));
  }
  CHECK(resolved("", "/.well-known/acme-challenge/x") == ".well-known/acme-challenge/x");
  CHECK(resolved("", "/a/.well-known/") == "a/.well-known/");
  CHECK(resolved("/.well-known", "/.well-known/x") == "x");
  CHECK(resolved("", "/.git/config", kHiddenToo) == ".git/config");
}

TEST_CASE("lengths") {
  const std::string name(255, 'n');
  CHECK(resolved("", "/" + name) == name);
  CHECK(refused(PathRefusal::kNameTooLong, "/" + name + "n"));
  CHECK(refused(PathRefusal::kNameTooLong, "/" + std::string(10000, 'n')));
  std::string escaped;
  std::string plain;
  for (int i = 0; i < 255; ++i) {
    escaped += "%E4";
    plain += '\xe4';
  }
  CHECK(resolved("", "/" + escaped) == plain);
  CHECK(refused(PathRefusal::kNameTooLong, "/" + escaped + "%E4"));
  // 16 names of 255 bytes and their slashes are 4095.
  std::string longest;
  for (int i = 0; i < 15; ++i) longest += "/" + name;
  CHECK(resolved("", longest + "/" + name) == (longest + "/" + name).substr(1));
  CHECK(refused(PathRefusal::kPathTooLong, longest + "/" + name + "/n"));
  CHECK(refused(PathRefusal::kPathTooLong, longest + longest));
  // It is the decoded length that counts.
  const std::string umlauts = longest.substr(0, 14 * 256) + "/" + escaped;
  CHECK(resolved("", umlauts) == longest.substr(1, 14 * 256 - 1) + "/" + plain);
  CHECK(resolved("", longest + "/" + escaped) == longest.substr(1) + "/" + plain);
  // Less room than that.
  for (size_t room = 0; room < 16; ++room) {
    std::vector<char> scratch(room);
    const auto result = resolve_file_path("", "/abc/defg", {}, scratch);
    CHECK(result.has_value() == (room >= 9));
    CHECK(resolve_file_path("", "/", {}, scratch).has_value() == (room >= 2));
  }
}

TEST_CASE("names that a listing may show") {
  CHECK(is_servable_name("a b", {}));
  CHECK(is_servable_name("\xff", {}));
  CHECK(is_servable_name("100%", {}));
  CHECK(is_servable_name("a?b#c", {}));
  CHECK(is_servable_name(".well-known", {}));
  CHECK_FALSE(is_servable_name("", {}));
  CHECK_FALSE(is_servable_name(".", kHiddenToo));
  CHECK_FALSE(is_servable_name("..", kHiddenToo));
  CHECK_FALSE(is_servable_name(".env", {}));
  CHECK(is_servable_name(".env", kHiddenToo));
  CHECK_FALSE(is_servable_name("a\\b", {}));
  CHECK_FALSE(is_servable_name("a\nb", {}));
  CHECK_FALSE(is_servable_name("a/b", {}));
  CHECK_FALSE(is_servable_name(std::string(256, 'a'), {}));
}

namespace {

// Attempts to leave the root, as they come over the wire.
const std::vector<std::string>& traversals() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> made;
    // Ways to write a dot and a slash.
    const std::vector<std::string> dots{"..",
                                        "%2e%2e",
                                        "%2E%2E",
                                        ".%2e",
                                        "%2e.",
                                        "%252e%252e",
                                        "%%32%65.",
                                        "%c0%ae.",
                                        "%c0%2e.",
                                        "%c0%ae%c0%ae",
                                        "%e0%80%ae.",
                                        "%f0%80%80%ae.",
                                        "%u002e.",
                                        "0x2e0x2e",
                                        "..%00",
                                        "%00..",
                                        "..;",
                                        "..%3b",
                                        "..%20",
                                        "..%09",
                                        "..%0d%0a",
                                        "%ef%bc%8e.",
                                        ".%ef%bc%8e",
                                        "%uff0e%uff0e",
                                        "....",
                                        ". .",
                                        "%25%32%65%25%32%65",
                                        "..%ff",
                                        "\xc0\xae\xc0\xae"};
    const std::vector<std::string> slashes{
        "/",         "//",     "\\",     "%2f",       "%2F",          "%5c",
        "%5C",       "%252f",  "%255c",  "%c0%af",    "%c1%9c",       "/./",
        "%e0%80%af", "%u2215", "/%2e/",  "%ef%bc%8f", "%f0%80%80%af", "\\/",
        ";/",        "/;/",    "%c0%2f", "%00/"};
    for (const std::string& dot : dots) {
      for (const std::string& slash : slashes) {
        const std::string climb = dot + slash;
        made.push_back("/" + climb + climb + climb + "etc" + slash + "passwd");
        made.push_back("/static" + slash + climb + climb + climb + "etc" + slash + "passwd");
        made.push_back("/static/css" + slash + dot);
      }
    }
    for (const char* other : {"//etc/passwd",
                              "///etc/passwd",
                              "/%2fetc%2fpasswd",
                              "/%5cetc%5cpasswd",
                              "/static//etc",
                              "/static/%2e%2e",
                              "/static/./../..",
                              "/static/..",
                              "/static/../",
                              "/static/...",
                              "/static/..../etc",
                              "/static/file:///etc/passwd",
                              "/static/C:/Windows/win.ini",
                              "/static/C:\\Windows",
                              "/static/\\\\host\\share",
                              "/static/%5c%5chost%5cshare",
                              "/static/~root/.bashrc",
                              "/static/.%00./etc",
                              "/static/a%00/../../etc",
                              "/static/index.html%00.jpg",
                              "/static/./.git/config",
                              "/static/%2egit/config",
                              "/static/.svn/entries",
                              "/static/.DS_Store",
                              "/static/a/%2e%2e%2f%2e%2e%2fetc",
                              "/static/..%c0%af..%c0%afetc",
                              "/static/..%252f..%252fetc",
                              "/static/..%5c..%5cetc",
                              "/static/..%2f",
                              "/static%2f..%2f..%2fetc",
                              "/%73tatic/../../etc",
                              "/static/.%2e/.%2e/etc",
                              "/static/a/../../../etc",
                              "/static/x/..;/..;/etc",
                              "/static/%2e%2e;/etc",
                              "/static/.%5c../etc",
                              "/static/..\xff/etc",
                              "/static/\xe2\x80\xae/..",
                              "*",
                              "",
                              "..",
                              "../etc/passwd",
                              "http://host/../etc/passwd",
                              "/static/%",
                              "/static/%2",
                              "/static/%2e%2",
                              "/static/%2g%2e",
                              "/static/..?/../etc",
                              "/static/..#/../etc"}) {
      made.emplace_back(other);
    }
    return made;
  }();
  return all;
}

}  // namespace

TEST_CASE("no encoding leaves the root") {
  size_t attempts = 0;
  for (const std::string& raw : traversals()) {
    std::string scratch(raw.size(), '\0');
    const auto normal = http::normalise_path(raw, scratch);
    for (std::string_view route : {"", "/", "/static", "/static/", "/static/css"}) {
      for (FilePathRules rules : {FilePathRules{}, kHiddenToo}) {
        ++attempts;
        INFO("raw " << raw << ", route " << route << ", hidden " << rules.allow_hidden);
        // As the proxy does it, and also without the first wall.
        if (normal) {
          const std::string path = resolved(route, normal->path, rules);
          CHECK((path.starts_with('!') || is_harmless(path, rules)));
          CHECK(path.find("etc/passwd") != 0);
        }
        const std::string path = resolved(route, raw, rules);
        CHECK((path.starts_with('!') || is_harmless(path, rules)));
      }
    }
  }
  CHECK(traversals().size() >= 1000);
  CHECK(attempts >= 10000);
}

TEST_CASE("each way to write a climb is refused, or is a name of its own") {
  const auto walls = [](std::string_view raw, FilePathRules rules) -> std::string {
    std::string scratch(raw.size(), '\0');
    const auto normal = http::normalise_path(raw, scratch);
    return normal ? resolved("/s", normal->path, rules) : "400";
  };
  const auto text = [](PathRefusal why) { return "!" + std::string(refusal_text(why)); };
  CHECK(walls("/s/../x", {}) == text(PathRefusal::kOutsideRoute));
  CHECK(walls("/s/%2e%2e/x", {}) == text(PathRefusal::kOutsideRoute));
  CHECK(walls("/s/../../x", {}) == "400");
  CHECK(walls("/s/..%2fx", {}) == "400");
  CHECK(walls("/s/..%5cx", {}) == "400");
  CHECK(walls("/s/a%2fx", {}) == text(PathRefusal::kEscapedSlash));
  CHECK(walls("/s/a%5cx", {}) == text(PathRefusal::kBackslash));
  CHECK(walls("/s/a\\x", {}) == "400");
  CHECK(walls("/s/%00", {}) == "400");
  CHECK(walls("/s/%c0%ae%c0%ae/x", {}) == text(PathRefusal::kOverlong));
  CHECK(walls("/s/%252e%252e/x", kHiddenToo) == "%2e%2e/x");
  CHECK(walls("/s/..;/x", {}) == text(PathRefusal::kHidden));
  CHECK(walls("/s/..;/x", kHiddenToo) == "..;/x");
  CHECK(walls("/s/%ef%bc%8e%ef%bc%8e/x", {}) == "\xef\xbc\x8e\xef\xbc\x8e/x");
  CHECK(walls("/s/.../x", kHiddenToo) == ".../x");
  CHECK(walls("/s//x", {}) == text(PathRefusal::kEmptySegment));
  CHECK(walls("/s/a/./b/../c", {}) == "a/c");
}

TEST_CASE("random paths resolve to harmless ones, and back to themselves") {
  base::Prng prng(404);
  const std::vector<std::string> pieces{
      "/", "//",  ".", "..",   "%2e",  "%2E",         "%2f", "%2F", "%5c", "\\",
      "%", "%00", "a", "b.c",  "%41",  "%c0%ae",      "%25", "%e4", "~",   ";",
      "?", "#",   " ", "\x01", "\xff", ".well-known", "%c0", "%af", "2e",  "0"};
  for (int i = 0; i < 100000; ++i) {
    std::string path = prng.chance(90) ? "/" : "";
    const size_t count = prng.below(14);
    for (size_t piece = 0; piece < count; ++piece) path += pieces[prng.below(pieces.size())];
    const FilePathRules rules{.allow_hidden = prng.chance(50)};
    const std::string found = resolved("", path, rules);
    if (found.starts_with('!')) continue;
    INFO(path);
    CHECK(is_harmless(found, rules));
    // Every name of it may be shown, and escaping the whole leads to the same file.
    if (found == "." || found == "./") continue;
    std::string again = "/";
    for (char c : found) {
      constexpr const char* kDigits = "0123456789ABCDEF";
      const auto byte = static_cast<unsigned char>(c);
      if (c == '/') {
        again += c;
      } else {
        again += '%';
        again += kDigits[byte >> 4];
        again += kDigits[byte & 15];
      }
    }
    CHECK(resolved("", again, rules) == found);
  }
}

}  // namespace weir::files
