#include <weir/files/listing.h>

#include <catch2/catch_test_macros.hpp>

#include <string>
#include <vector>

#include <weir/base/prng.h>
#include <weir/files/file_path.h>

#include "fields.h"

namespace weir::files {

namespace {

constexpr int64_t kThen = 784111777;  // 1994-11-06T08:49:37Z

ListingEntry file(std::string_view name, uint64_t size = 1, int64_t modified = kThen) {
  return {name, false, size, modified};
}
ListingEntry directory(std::string_view name, int64_t modified = kThen) {
  return {name, true, 4096, modified};
}

std::string html(const ListingPage& page, const std::vector<ListingEntry>& entries) {
  return render_listing_html(page, entries).body;
}

std::string json(const ListingPage& page, const std::vector<ListingEntry>& entries) {
  return render_listing_json(page, entries).body;
}

bool has(std::string_view text, std::string_view piece) {
  return text.find(piece) != std::string_view::npos;
}

// Every href, in order. All attributes of the page are in double quotes.
std::vector<std::string> links(std::string_view text) {
  std::vector<std::string> found;
  constexpr std::string_view kMark = "<a href=\"";
  for (size_t at = text.find(kMark); at != std::string_view::npos; at = text.find(kMark, at + 1)) {
    const size_t begin = at + kMark.size();
    found.emplace_back(text.substr(begin, text.find('"', begin) - begin));
  }
  return found;
}

// RFC 3986 5.2 for relative references without scheme and authority, and base paths without dots.
std::string follow(std::string_view base, std::string_view reference) {
  if (reference.starts_with('?')) return std::string(base) + std::string(reference);
  std::string path(base.substr(0, base.rfind('/') + 1));
  while (!reference.empty()) {
    const std::string_view step = reference.substr(0, reference.find('/') + 1);
    const std::string_view segment = step.empty() ? reference : step;
    reference.remove_prefix(segment.size());
    if (segment == "./") continue;
    if (segment == "../") {
      path.resize(path.rfind('/', path.size() - 2) + 1);
    } else {
      path += segment;
    }
  }
  return path;
}

// Is every element that is opened closed, in order, with attributes in quotes, and is every '&' a
// reference?
bool is_well_formed(std::string_view text) {
  std::vector<std::string> open;
  for (size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at)) {
    const size_t end = text.find('>', at);
    if (end == std::string_view::npos) return false;
    std::string tag(text.substr(at + 1, end - at - 1));
    at = end;
    if (tag.starts_with('!') || tag.starts_with("meta") || tag.ends_with('/')) continue;
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
      continue;
    }
    size_t quotes = 0;
    for (char c : tag) quotes += c == '"';
    if (quotes % 2 != 0) return false;
    open.push_back(tag.substr(0, tag.find_first_of(" \n")));
  }
  for (size_t at = text.find('&'); at != std::string_view::npos; at = text.find('&', at + 1)) {
    const std::string_view reference = text.substr(at, text.find(';', at) - at + 1);
    if (reference != "&amp;" && reference != "&lt;" && reference != "&gt;" &&
        reference != "&quot;" && reference != "&#39;") {
      return false;
    }
  }
  return open.empty();
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t size = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (size == 0 || lead > 0xf4 || size > text.size() - i) return false;
    for (size_t more = 1; more < size; ++more) {
      if ((static_cast<unsigned char>(text[i + more]) & 0xc0) != 0x80) return false;
    }
    i += size;
  }
  return true;
}

// Reads JSON strictly enough for the arrays of flat objects that listings are: the values of every
// object in order, each with its key before it. Fails the test on anything else.
std::vector<std::vector<std::string>> parse_json(std::string_view text) {
  size_t at = 0;
  const auto skip = [&] {
    while (at < text.size() && (text[at] == ' ' || text[at] == '\n')) ++at;
  };
  const auto expect = [&](char c) {
    skip();
    REQUIRE(at < text.size());
    REQUIRE(text[at] == c);
    ++at;
  };
  const auto string = [&] {
    std::string value;
    expect('"');
    for (;; ++at) {
      // REQUIRE counts, and these are millions.
      if (at >= text.size() || static_cast<unsigned char>(text[at]) < 0x20) FAIL("bad string");
      if (text[at] == '"') break;
      if (text[at] != '\\') {
        value += text[at];
        continue;
      }
      ++at;
      if (text[at] == '"' || text[at] == '\\') {
        value += text[at];
        continue;
      }
      REQUIRE(text[at] == 'u');
      const auto point = std::stoul(std::string(text.substr(at + 1, 4)), nullptr, 16);
      at += 4;
      if (point < 0x80) {
        value += static_cast<char>(point);
      } else {
        REQUIRE((point == 0x2028 || point == 0x2029));
        value += point == 0x2028 ? "\xe2\x80\xa8" : "\xe2\x80\xa9";
      }
    }
    ++at;
    return value;
  };
  std::vector<std::vector<std::string>> objects;
  expect('[');
  for (skip(); text[at] != ']'; skip()) {
    if (!objects.empty()) expect(',');
    std::vector<std::string> object;
    expect('{');
    while (text[at] != '}') {
      if (!object.empty()) expect(',');
      object.push_back(string());
      expect(':');
      if (text[at] == '"') {
        object.push_back(string());
        continue;
      }
      std::string number;
      while (text[at] >= '0' && text[at] <= '9') number += text[at++];
      REQUIRE_FALSE(number.empty());
      object.push_back(number);
    }
    ++at;
    objects.push_back(object);
  }
  ++at;
  skip();
  REQUIRE(at == text.size());
  return objects;
}

}  // namespace

TEST_CASE("the query of a listing") {
  const auto options = parse_listing_query("format=json&sort=size&order=desc");
  CHECK(options.format == ListingFormat::kJson);
  CHECK(options.sort == ListingSort::kSize);
  CHECK(options.descending);
  const auto none = parse_listing_query("");
  CHECK_FALSE(none.format.has_value());
  CHECK(none.sort == ListingSort::kName);
  CHECK_FALSE(none.descending);
  CHECK(parse_listing_query("sort=time").sort == ListingSort::kModified);
  CHECK_FALSE(parse_listing_query("format=xml&&=&format&sort=&x=format=json").format.has_value());
  CHECK(parse_listing_query("format=json&format=html").format == ListingFormat::kHtml);
  CHECK_FALSE(parse_listing_query("order=desc&order=asc").descending);
}

TEST_CASE("HTML or JSON, by query or Accept") {
  const auto by_accept = [](std::string_view accept, std::string_view query = "") {
    return choose_listing_format(parse_listing_query(query), fields_of({{"Accept", accept}}));
  };
  CHECK(choose_listing_format({}, http::FieldTable{}) == ListingFormat::kHtml);
  CHECK(by_accept("application/json") == ListingFormat::kJson);
  CHECK(by_accept("Application/JSON") == ListingFormat::kJson);
  CHECK(by_accept("application/json;charset=utf-8") == ListingFormat::kJson);
  CHECK(by_accept("application/*") == ListingFormat::kJson);
  CHECK(by_accept("*/*") == ListingFormat::kHtml);
  CHECK(by_accept("") == ListingFormat::kHtml);
  CHECK(by_accept("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8") ==
        ListingFormat::kHtml);
  CHECK(by_accept("application/json, text/plain, */*") == ListingFormat::kHtml);
  CHECK(by_accept("application/json, */*;q=0.5") == ListingFormat::kJson);
  CHECK(by_accept("application/json;q=0.5, text/*") == ListingFormat::kHtml);
  CHECK(by_accept("application/json;q=0.9, text/html;q=0.8, text/*") == ListingFormat::kJson);
  CHECK(by_accept("application/json;q=0, */*") == ListingFormat::kHtml);
  CHECK(by_accept("text/html;q=0, */*;q=0.1") == ListingFormat::kJson);
  CHECK(by_accept("application/json;q=9") == ListingFormat::kHtml);
  CHECK(by_accept("application/json", "format=html") == ListingFormat::kHtml);
  CHECK(by_accept("text/html", "format=json") == ListingFormat::kJson);
}

TEST_CASE("sorting puts directories first") {
  const auto sorted = [](std::string_view query) {
    std::vector<ListingEntry> entries{file("b", 10, 300), file("A", 30, 200), file("c", 20, 100),
                                      directory("z", 50), directory("Y", 60), file("a", 30, 200)};
    sort_listing(entries, parse_listing_query(query));
    std::string names;
    for (const ListingEntry& entry : entries) names += entry.name;
    return names;
  };
  CHECK(sorted("") == "YzAabc");
  CHECK(sorted("order=desc") == "zYcbaA");
  CHECK(sorted("sort=size") == "YzbcAa");
  CHECK(sorted("sort=size&order=desc") == "YzAacb");
  CHECK(sorted("sort=time") == "zYcAab");
  CHECK(sorted("sort=time&order=desc") == "YzbAac");
}

TEST_CASE("the HTML has names, sizes and times") {
  const std::string page = html({.path = "/static/", .route_path = "/static"},
                                {directory("css"), file("a b.txt", 1536), file("big", 5ULL << 30)});
  CHECK(page.starts_with("<!DOCTYPE html>"));
  CHECK(is_well_formed(page));
  CHECK(has(page, "<title>Index of /static/</title>"));
  CHECK(has(page, "<a href=\"./css/\">"));
  CHECK(has(page, "<bdi>css/</bdi>"));
  CHECK(has(page, "<a href=\"./a%20b.txt\">"));
  CHECK(has(page, "<bdi>a b.txt</bdi></a></td><td class=\"s\">1.5 KiB</td>"));
  CHECK(has(page, "<time datetime=\"1994-11-06T08:49:37Z\">1994-11-06 08:49</time>"));
  CHECK(has(page, "1 directory, 2 files, 5.0 GiB"));
  CHECK(has(page, "prefers-color-scheme:dark"));
  CHECK_FALSE(has(page, "<script"));
  CHECK_FALSE(has(page, "Parent directory"));  // the root of the route
  CHECK_FALSE(has(page, "empty"));
}

TEST_CASE("an empty directory says so") {
  const std::string page = html({.path = "/", .route_path = ""}, {});
  CHECK(has(page, "This directory is empty."));
  CHECK(has(page, "0 directories, 0 files</p>"));
  CHECK(is_well_formed(page));
  CHECK(json({.path = "/", .route_path = ""}, {}) == "[\n]\n");
  CHECK_FALSE(has(html({.path = "/", .route_path = "", .more = true}, {}), "is empty"));
}

TEST_CASE("links lead where they should, with and without a slash at the end") {
  struct Case {
    std::string_view path;
    std::string_view route;
    std::vector<std::string> targets;  // crumbs but the last, then the parent, then entry "x y"
  };
  const Case cases[] = {
      {"/", "", {"/x%20y/"}},
      {"/static/", "/static", {"/static/x%20y/"}},
      {"/static", "/static", {"/static/x%20y/"}},
      {"/static", "/static/", {"/static/x%20y/"}},
      {"/a/", "", {"/", "/", "/a/x%20y/"}},
      {"/a", "", {"/", "/", "/a/x%20y/"}},
      {"/s/a/b/", "/s", {"/s/", "/s/a/", "/s/a/", "/s/a/b/x%20y/"}},
      {"/s/a/b", "/s", {"/s/", "/s/a/", "/s/a/", "/s/a/b/x%20y/"}},
      {"/s/a%20\"b", "/s", {"/s/", "/s/", "/s/a%20%22b/x%20y/"}},
  };
  for (const Case& c : cases) {
    INFO(c.path << " of " << c.route);
    const std::string page = html({.path = c.path, .route_path = c.route}, {directory("x y")});
    std::vector<std::string> targets;
    for (const std::string& link : links(page)) {
      if (!link.starts_with('?')) targets.push_back(follow(c.path, link));
    }
    CHECK(targets == c.targets);
    CHECK(has(page, "Parent directory") == (c.targets.size() > 1));
    CHECK(is_well_formed(page));
    const auto objects =
        parse_json(json({.path = c.path, .route_path = c.route}, {directory("x y")}));
    REQUIRE(objects.size() == 1);
    CHECK(follow(c.path, objects[0].back()) == c.targets.back());
  }
}

TEST_CASE("columns sort, and the other way round when they are sorted") {
  const auto sort_links = [](std::string_view query) {
    std::string all;
    ListingPage page{.path = "/", .route_path = "", .options = parse_listing_query(query)};
    for (const std::string& link : links(html(page, {}))) {
      if (link.starts_with('?')) all += link;
    }
    return all;
  };
  CHECK(sort_links("") ==
        "?sort=name&amp;order=desc?sort=size&amp;order=desc"
        "?sort=time&amp;order=desc");
  CHECK(sort_links("sort=name&order=desc") ==
        "?sort=name&amp;order=asc?sort=size&amp;order=desc?sort=time&amp;order=desc");
  CHECK(sort_links("sort=size&order=desc") ==
        "?sort=name&amp;order=asc?sort=size&amp;order=asc?sort=time&amp;order=desc");
  CHECK(has(sort_links("format=html"), "?format=html&amp;sort=name"));
  CHECK(has(html({.path = "/", .route_path = "", .options = parse_listing_query("sort=time")}, {}),
            "<th scope=\"col\" class=\"t\" aria-sort=\"ascending\">"));
}

TEST_CASE("names cannot break out of the page") {
  const std::string page =
      html({.path = "/s/%3Cb%3E&\"'/", .route_path = "/s"},
           {file("<script>alert(1)</script>"), file("\" onclick=\"x"), file("a&b'c"),
            file("javascript:alert(1)"), file("//evil.example"), file("?q#f"), file("%41"),
            file("exe\xe2\x80\xaetxt.scr"), file("\xff\xfe"), file("a\x1b[31m\x7f"),
            file("\xed\xa0\x80"), file("\xe2\x82\xac")});
  CHECK(is_well_formed(page));
  CHECK(is_utf8(page));
  CHECK_FALSE(has(page, "<script"));
  CHECK(has(page, "&lt;script&gt;alert(1)&lt;/script&gt;"));
  CHECK(has(page, "href=\"./%3Cscript%3Ealert%281%29%3C%2Fscript%3E\""));
  CHECK(has(page, "href=\"./%22%20onclick%3D%22x\""));
  CHECK(has(page, "a&amp;b&#39;c"));
  CHECK(has(page, "href=\"./javascript%3Aalert%281%29\""));
  CHECK(has(page, "href=\"./%2F%2Fevil.example\""));
  CHECK(has(page, "href=\"./%3Fq%23f\""));
  CHECK(has(page, "href=\"./%2541\""));
  CHECK(has(page, "exe\xef\xbf\xbdtxt.scr"));  // no override of the direction
  CHECK(has(page, "href=\"./%FF%FE\""));
  CHECK(has(page, "<bdi>\xef\xbf\xbd\xef\xbf\xbd</bdi>"));
  CHECK(has(page, "a\xef\xbf\xbd[31m\xef\xbf\xbd"));
  CHECK(has(page, "<bdi>\xe2\x82\xac</bdi>"));
  CHECK(has(page, "<title>Index of /s/&lt;b&gt;&amp;&quot;&#39;/</title>"));
}

TEST_CASE("sizes for people") {
  const auto size = [](uint64_t bytes) {
    const std::string page = html({.path = "/", .route_path = ""}, {file("f", bytes)});
    const std::string mark = "<td class=\"s\">";
    const size_t begin = page.find(mark) + mark.size();
    return page.substr(begin, page.find('<', begin) - begin);
  };
  CHECK(size(0) == "0 B");
  CHECK(size(1) == "1 B");
  CHECK(size(1023) == "1023 B");
  CHECK(size(1024) == "1.0 KiB");
  CHECK(size(1536) == "1.5 KiB");
  CHECK(size(10 * 1024 - 52) == "9.9 KiB");
  CHECK(size(10 * 1024 - 51) == "10 KiB");
  CHECK(size(10 * 1024) == "10 KiB");
  CHECK(size(1023 * 1024 + 511) == "1023 KiB");
  CHECK(size(1023 * 1024 + 512) == "1.0 MiB");  // never "1024 KiB"
  CHECK(size(1024 * 1024) == "1.0 MiB");
  CHECK(size(123456789) == "118 MiB");
  CHECK(size(1ULL << 40) == "1.0 TiB");
  CHECK(size(UINT64_MAX) == "16 EiB");
}

TEST_CASE("the JSON has everything, also names that are not UTF-8") {
  const auto objects = parse_json(
      json({.path = "/s/", .route_path = "/s"},
           {directory("d"), file("a\"b\\c\n\x01</x>", 12, 0), file("\xff.txt", UINT64_MAX, -1),
            file("\xe2\x80\xa8\xe2\x82\xac", 0, INT64_MAX)}));
  using Object = std::vector<std::string>;
  REQUIRE(objects.size() == 4);
  CHECK(objects[0] ==
        Object{"name", "d", "type", "directory", "mtime", "1994-11-06T08:49:37Z", "href", "./d/"});
  CHECK(objects[1] == Object{"name", "a\"b\\c\n\x01</x>", "type", "file", "size", "12", "mtime",
                             "1970-01-01T00:00:00Z", "href", "./a%22b%5Cc%0A%01%3C%2Fx%3E"});
  CHECK(objects[2] == Object{"name", "\xef\xbf\xbd.txt", "type", "file", "size",
                             "18446744073709551615", "mtime", "1969-12-31T23:59:59Z", "href",
                             "./%FF.txt"});
  CHECK(objects[3] == Object{"name", "\xe2\x80\xa8\xe2\x82\xac", "type", "file", "size", "0",
                             "mtime", "9999-12-31T23:59:59Z", "href", "./%E2%80%A8%E2%82%AC"});
  CHECK(json({.path = "/", .route_path = ""}, {file("<&>")}).find('<') == std::string::npos);
}

TEST_CASE("listings are bounded and say so") {
  std::vector<std::string> names;
  for (size_t i = 0; i < kListingEntriesMax + 1; ++i) names.push_back("n" + std::to_string(i));
  std::vector<ListingEntry> entries;
  for (const std::string& name : names) entries.push_back(file(name));
  const ListingPage page{.path = "/", .route_path = ""};
  const Listing many = render_listing_html(page, entries);
  CHECK(many.shown == kListingEntriesMax);
  CHECK_FALSE(many.complete);
  CHECK(has(many.body, "There are more entries: only 10000 are shown."));
  CHECK(has(many.body, "10000 files"));
  const Listing array = render_listing_json(page, entries);
  CHECK(array.shown == kListingEntriesMax);
  CHECK_FALSE(array.complete);
  CHECK(parse_json(array.body).size() == kListingEntriesMax);
  entries.pop_back();
  CHECK(render_listing_html(page, entries).complete);
  CHECK_FALSE(has(render_listing_html(page, entries).body, "more entries"));
  CHECK(render_listing_json(page, entries).complete);
  const ListingPage unread{.path = "/", .route_path = "", .more = true};
  CHECK_FALSE(render_listing_html(unread, entries).complete);
  CHECK_FALSE(render_listing_json(unread, entries).complete);
  CHECK(has(render_listing_html(unread, entries).body, "There are more entries"));
}

TEST_CASE("long names reach the limit in bytes first") {
  const std::string name(255, '"');  // the longest in HTML: 6 + 3 bytes each
  const std::vector<ListingEntry> entries(kListingEntriesMax, file(name));
  const Listing page = render_listing_html({.path = "/", .route_path = ""}, entries);
  CHECK(page.body.size() < kListingBytesMax + 1024);
  CHECK(page.shown < kListingEntriesMax);
  CHECK(page.shown > 3000);
  CHECK_FALSE(page.complete);
  CHECK(is_well_formed(page.body));
  const std::string control(255, '\x01');
  const std::vector<ListingEntry> controls(kListingEntriesMax, file(control));
  const Listing array = render_listing_json({.path = "/", .route_path = ""}, controls);
  CHECK(array.body.size() < kListingBytesMax + 1024);
  CHECK_FALSE(array.complete);
  CHECK(parse_json(array.body).size() == array.shown);
}

TEST_CASE("random names: well-formed, and every link leads back to its name") {
  base::Prng prng(207);
  for (int i = 0; i < 3000; ++i) {
    std::string name;
    const size_t size = 1 + prng.below(30);
    while (name.size() < size) {
      const auto byte = static_cast<char>(prng.chance(30) ? prng.below(256) : 32 + prng.below(95));
      if (byte != '/' && byte != '\0') name += byte;
    }
    if (name == "." || name == "..") continue;
    const std::vector<ListingEntry> entries{file(name)};
    const std::string_view path = prng.chance(50) ? "/s/d/" : "/s/d";
    const ListingPage page{.path = path, .route_path = "/s"};
    const std::string made = html(page, entries);
    CHECK(is_well_formed(made));
    CHECK(is_utf8(made));
    const std::string array = json(page, entries);
    CHECK(is_utf8(array));
    const auto objects = parse_json(array);
    REQUIRE(objects.size() == 1);
    const std::string& href = objects[0].back();
    CHECK(links(made).back() == href);
    constexpr FilePathRules kRules{.allow_hidden = true};
    std::array<char, kFilePathBytesMax + 1> scratch;
    const auto found = resolve_file_path("/s", follow(path, href), kRules, scratch);
    CHECK(found.has_value() == is_servable_name(name, kRules));
    if (found) CHECK(found->path == "d/" + name);
  }
}

}  // namespace weir::files
