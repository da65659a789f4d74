// Every kind of mistake once, with the exact text and place that the user reads.
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "config_cases.h"

using namespace weir::control::config;
using namespace weir::control::config::test;

namespace {

struct Case {
  std::string text;
  std::vector<std::string> errors;
};

void check(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    INFO(one.text);
    CHECK(errors_of(one.text) == one.errors);
  }
}

}  // namespace

TEST_CASE("values of the wrong type") {
  check({
      {"[server]\nsend_timeout = true",
       {"weir.toml:2:16: server.send_timeout: must be a duration such as 30 (seconds), \"500ms\" "
        "or "
        "\"5m\", not a boolean"}},
      {"[server]\nmax_header_size = 1.5",
       {"weir.toml:2:19: server.max_header_size: must be a size such as 65536 or \"64KiB\", not a "
        "fraction"}},
      {"[server]\nmax_header_fields = \"many\"",
       {"weir.toml:2:21: server.max_header_fields: must be an integer, not \"many\""}},
      {"[server]\nforwarded = 1",
       {"weir.toml:2:13: server.forwarded: must be true or false, not an integer"}},
      {"[server]\nforwarded = \"true\"",
       {"weir.toml:2:13: server.forwarded: must be true or false, not \"true\""}},
      {"[server]\nvia = [\"weir\"]", {"weir.toml:2:7: server.via: must be a string, not a list"}},
      {"[server]\nvia = 2020-01-01",
       {"weir.toml:2:7: server.via: must be a string, not a date or time"}},
      {"[logging]\nlevel = 3",
       {"weir.toml:2:9: logging.level: must be one of \"trace\", \"debug\", \"info\", \"warn\", "
        "\"error\", \"off\", not an integer"}},
      {"server = 3", {"weir.toml:1:10: server: must be a table, not an integer"}},
      {"[upstream]\napp = \"127.0.0.1:80\"",
       {"weir.toml:2:1: upstream.app: must be a table: write [upstream.NAME] with servers = "
        "[...]"}},
      {"[server]\nthreads = true",
       {"weir.toml:2:11: server.threads: must be \"auto\" or an integer, not a boolean"}},
      {"[server]\ncpus = 3",
       {"weir.toml:2:8: server.cpus: must be a list of CPU numbers or a string such as \"0-3,8\", "
        "not an integer"}},
      {"[[route]]\nhost = 1\nrespond = {}",
       {"weir.toml:2:8: route[0].host: must be a string or a list of strings, not an integer"}},
      {"[[route]]\nhost = [1]\nrespond = {}",
       {"weir.toml:2:9: route[0].host[0]: must be a string, not an integer"}},
      {"[[route]]\nmethods = []\nrespond = {}",
       {"weir.toml:2:11: route[0].methods: must not be an empty list"}},
      {"[[route]]\nheaders = \"x\"\nrespond = {}",
       {"weir.toml:2:11: route[0].headers: must be a table, not a string"}},
      {"[[route]]\nrespond = 200",
       {"weir.toml:2:11: route[0].respond: must be a table such as {status = 200, body = \"...\"}, "
        "not an integer"}},
      {"[[route]]\nredirect = 301",
       {"weir.toml:2:12: route[0].redirect: must be a URL or a table such as {url = \"...\", "
        "status "
        "= 301}, not an integer"}},
  });
}

TEST_CASE("tables in place of lists of tables") {
  const std::string listener = "\n[[listener]]\naddress = \"0.0.0.0:1\"";
  CHECK(
      lines_of(load_text("[route]\nproxy = \"x\"" + listener).errors) ==
      std::vector<std::string>{"weir.toml:1:1: route: must be a list of tables: write [[route]]"});
  CHECK(lines_of(load_text("route = [1]" + listener).errors) ==
        std::vector<std::string>{"weir.toml:1:10: route[0]: must be a table, not an integer"});
}

TEST_CASE("values out of range") {
  check({
      {"[server]\nkeepalive_timeout = 0",
       {"weir.toml:2:21: server.keepalive_timeout: must be between 1ms and 30d, not 0s"}},
      {"[server]\nshutdown_timeout = -4",
       {"weir.toml:2:20: server.shutdown_timeout: must be 0 (at once) or between 1ms and 1d, not "
        "-4s"}},
      {"[server]\nsend_timeout = 9223372036854775807",
       {"weir.toml:2:16: server.send_timeout: must be between 1ms and 30d, not "
        "9223372036854775807ms"}},
      {"[server]\nsend_timeout = \"3 weeks\"",
       {"weir.toml:2:16: server.send_timeout: must be a duration such as 30 (seconds), \"500ms\" "
        "or "
        "\"5m\", not \"3 weeks\""}},
      {"[server]\nmax_header_size = \"2MiB\"",
       {"weir.toml:2:19: server.max_header_size: must be between 1KiB and 1MiB, not 2MiB"}},
      {"[server]\nthreads = 1025",
       {"weir.toml:2:11: server.threads: must be 0 (auto) or between 1 and 1024, not 1025"}},
      {"[server]\nthreads = \"four\"",
       {"weir.toml:2:11: server.threads: must be \"auto\" or an integer between 1 and 1024, not "
        "\"four\""}},
      {"[server]\ncpus = [2, 2000]",
       {"weir.toml:2:12: server.cpus[1]: must be between 0 and 1023, not 2000"}},
      {"[server]\ncpus = [2, 2]", {"weir.toml:2:8: server.cpus: names CPU 2 twice"}},
      {"[server]\ncpus = \"3-1\"",
       {"weir.toml:2:8: server.cpus: must be CPU numbers such as \"0-3,8\", not \"3-1\""}},
      {"[server]\nvia = \"a b\"",
       {"weir.toml:2:7: server.via: must be letters, digits and marks without spaces, or empty"}},
      {"[server]\nserver_header = \"a\\nb\"",
       {"weir.toml:2:17: server.server_header: must not contain line ends or control characters"}},
      {"[logging]\naccess_log = \"\"",
       {"weir.toml:2:14: logging.access_log: must name a file or a stream"}},
      {"[logging]\nlevel = \"inf\"",
       {"weir.toml:2:9: logging.level: must be one of \"trace\", \"debug\", \"info\", \"warn\", "
        "\"error\", \"off\", not \"inf\"; did you mean \"info\"?"}},
      {"[performance]\nreceive_buffers = 1000",
       {"weir.toml:2:19: performance.receive_buffers: must be a power of two"}},
      {"[security]\ndrop_privileges_user = \"a b\"",
       {"weir.toml:2:24: security.drop_privileges_user: is not the name of a user or group"}},
      {"[security]\ntrusted_proxies = [\"::1\", \"10.0.0.1/8\"]",
       {"weir.toml:2:27: security.trusted_proxies[1]: must be an IP address or a block such as "
        "\"10.0.0.0/8\" without host bits, not \"10.0.0.1/8\""}},
      {"[upstream_defaults]\nhost_header = \"a b\"",
       {"weir.toml:2:15: upstream_defaults.host_header: must be a host such as \"app.internal\" or "
        "\"app.internal:8080\", or empty"}},
      {"[[route]]\nname = \"\"\nrespond = {}", {"weir.toml:2:8: route[0].name: must be a name"}},
      {"[[listener]]\naddress = \"1.2.3.4:80\"\nbacklog = 0",
       {"weir.toml:3:11: listener[0].backlog: must be between 1 and 65535, not 0"}},
  });
}

TEST_CASE("unknown keys get the nearest known one, or their home") {
  check({
      {"[server]\ntreads = 2",
       {"weir.toml:2:1: server.treads: unknown key; did you mean \"threads\"?"}},
      {"[server]\nbacklog = 2",
       {"weir.toml:2:1: server.backlog: unknown key here; it belongs to [[listener]]"}},
      {"[server]\nconnect_timeout = 2",
       {"weir.toml:2:1: server.connect_timeout: unknown key here; it belongs to "
        "[upstream_defaults] "
        "or [upstream.NAME]"}},
      {"[performance]\nzzzzzz = 2",
       {"weir.toml:2:1: performance.zzzzzz: unknown key; known here: reuseport_balancing, "
        "huge_pages_enabled, receive_buffers, receive_strategy, splice_threshold, "
        "open_file_cache_entries, open_file_cache_valid, file_memory, file_memory_max_size"}},
      {"[servr]\nthreads = 2", {"weir.toml:1:2: servr: unknown key; did you mean \"server\"?"}},
      {"threads = 2", {"weir.toml:1:1: threads: unknown key here; it belongs to [server]"}},
      {"[[route]]\nrespond = {boddy = \"x\"}",
       {"weir.toml:2:12: route[0].respond.boddy: unknown key; did you mean \"body\"?"}},
      {"[upstream.a]\nservers = [{address = \"a:1\", wieght = 2}]",
       {"weir.toml:2:30: upstream.a.servers[0].wieght: unknown key; did you mean \"weight\"?"}},
      {"[[route]]\nheaders = {A = {sufix = \"x\", prefix = \"y\"}}\nrespond = {}",
       {"weir.toml:2:17: route[0].headers.A.sufix: unknown key; known here: prefix"}},
      {"[[route]]\n\"a b\" = 1\nrespond = {}",
       {"weir.toml:2:1: route[0].\"a b\": unknown key; known here: name, host, path, match, "
        "methods, "
        "headers, query, source, proxy, redirect, respond, "
        "file, connect, upgrade, max_body_size"}},
  });
}

TEST_CASE("a setting given twice, under two names") {
  check({
      {"[server]\nkeepalive_timeout = 3\nkeepalive_timeout_secs = 3",
       {"weir.toml:3:1: server.keepalive_timeout_secs: is the same setting as "
        "\"keepalive_timeout\" "
        "in line 2"}},
      {"[server]\nkeepalive_timeout_secs = \"3s\"",
       {"weir.toml:2:26: server.keepalive_timeout_secs: must be an integer, not \"3s\""}},
      {"[server]\nkeepalive_timeout_ms = true",
       {"weir.toml:2:24: server.keepalive_timeout_ms: must be an integer, not a boolean"}},
  });
}

TEST_CASE("listeners") {
  check({
      {"[[listener]]\nname = \"x\"", {"weir.toml:1:1: listener[0]: has no address"}},
      {"[[listener]]\naddress = \"localhost:80\"",
       {"weir.toml:2:11: listener[0].address: must be an address such as \"0.0.0.0:80\", "
        "\"[::]:80\", \"*:80\" or \"unix:/PATH\", not \"localhost:80\"; did you mean "
        "\"127.0.0.1:80\"?"}},
      {"[server]\nlisten = [\"0.0.0.0:80\", \"80\"]",
       {"weir.toml:2:25: server.listen[1]: must be an address such as \"0.0.0.0:80\", \"[::]:80\", "
        "\"*:80\" or \"unix:/PATH\", not \"80\""}},
      {"[[listener]]\naddress = \"0.0.0.0:80\"\n[server]\nlisten = \"0.0.0.0:80\"",
       {"weir.toml:4:10: listener: \"0.0.0.0:80\" is given twice, first in line 1"}},
      {"[[listener]]\naddress = \"unix:/a\"\n[[listener]]\naddress = \"unix:/a\"",
       {"weir.toml:3:1: listener: \"unix:/a\" is given twice, first in line 1"}},
      {"[[listener]]\naddress = \"0.0.0.0:0\"\n[[listener]]\naddress = \"0.0.0.0:0\"", {}},
  });
  CHECK(lines_of(load_text("").errors) ==
        std::vector<std::string>{"weir.toml:1:1: listener: there is none; give one, for example "
                                 "[[listener]] address = \"0.0.0.0:80\""});
  CHECK(lines_of(load_text("[listener]\naddress = \"0.0.0.0:80\"").errors) ==
        std::vector<std::string>{
            "weir.toml:1:1: listener: must be a list of tables: write [[listener]]"});
}

TEST_CASE("upstreams and their servers") {
  check({
      {"[upstream.a]\nconnect_timeout = 1", {"weir.toml:1:1: upstream.a: has no servers"}},
      {"[upstream.a]\nservers = []",
       {"weir.toml:2:11: upstream.a.servers: must name at least one server"}},
      {"[upstream.a]\nservers = 3",
       {"weir.toml:2:11: upstream.a.servers: must be a list of servers, not an integer"}},
      {"[upstream.a]\nservers = [3]",
       {"weir.toml:2:12: upstream.a.servers[0]: must be a string or a table such as {address = "
        "\"10.0.0.1:80\"}, not an integer"}},
      {"[upstream.a]\nservers = [\"10.0.0.1\"]",
       {"weir.toml:2:12: upstream.a.servers[0]: needs a port, as in \"10.0.0.1:80\""}},
      {"[upstream.a]\nservers = [\"10.0.0.1:0\"]",
       {"weir.toml:2:12: upstream.a.servers[0]: has a port that is not a number between 1 and "
        "65535"}},
      {"[upstream.a]\nservers = [\"::1:80\"]",
       {"weir.toml:2:12: upstream.a.servers[0]: \"::1\" is not an IPv6 address in brackets"}},
      {"[upstream.a]\nservers = [\"300.1.1.1:80\"]",
       {"weir.toml:2:12: upstream.a.servers[0]: \"300.1.1.1\" is not a host name or IP address"}},
      {"[upstream.a]\nservers = [\":80\"]", {"weir.toml:2:12: upstream.a.servers[0]: has no host"}},
      {"[upstream.a]\nservers = [\"unix:\"]",
       {"weir.toml:2:12: upstream.a.servers[0]: must be \"unix:/PATH\" with a path of 1 to 107 "
        "bytes"}},
      {"[upstream.a]\nservers = [\"http://a:1\"]",
       {"weir.toml:2:12: upstream.a.servers[0]: must be written without \"http://\", as in "
        "\"10.0.0.1:80\""}},
      {"[upstream.a]\nservers = [{weight = 2}]",
       {"weir.toml:2:12: upstream.a.servers[0]: has no address"}},
      {"[upstream.a]\nservers = [\"a:1\", {address = \"b\", weight = 257}]",
       {"weir.toml:2:30: upstream.a.servers[1].address: needs a port, as in \"10.0.0.1:80\"",
        "weir.toml:2:44: upstream.a.servers[1].weight: must be between 1 and 256, not 257"}},
      {"[upstream.\"a b\"]\nservers = \"a:1\"",
       {"weir.toml:1:11: upstream.\"a b\": an upstream's name has 1 to 64 letters, digits, '-', "
        "'_' "
        "and '.'"}},
  });
}

TEST_CASE("what a proxy route may name") {
  const std::string upstream = "[upstream.api]\nservers = \"a:1\"\n";
  const auto errors = [&upstream](const std::string& target) {
    return errors_of(upstream + "[[route]]\nproxy = \"" + target + "\"");
  };
  const auto one = [](const std::string& message) {
    return std::vector<std::string>{"weir.toml:4:9: route[0].proxy: " + message};
  };
  CHECK(errors("apii") == one("there is no upstream \"apii\"; did you mean \"api\"?"));
  CHECK(errors("storage") == one("there is no upstream \"storage\"; give it as [upstream.storage], "
                                 "or write a URL such as \"http://127.0.0.1:3000\""));
  CHECK(errors("127.0.0.1:80") == one("must be the name of an upstream or a URL such as "
                                      "\"http://127.0.0.1:3000\", not \"127.0.0.1:80\""));
  CHECK(errors("https://") == one("has no host"));
  CHECK(errors("https://api/x") == one("the upstream \"api\" has no tls: write it with http://"));
  CHECK(errors("http://") == one("has no host"));
  CHECK(errors("http://a:0") == one("has a port that is not a number between 1 and 65535"));
  CHECK(errors("http://u:p@a") == one("must not contain a user name"));
  CHECK(errors("http://a/x?y") == one("path must not contain \"?\""));
  CHECK(errors("http://a?y") == one("path must begin with \"/\", not \"?y\""));
  CHECK(errors("http://a_b-/") == one("\"a_b-\" is not a host name or IP address"));
  CHECK(errors("http://api/x").empty());
}

TEST_CASE("where a route applies") {
  check({
      {"[[route]]\npath = \"api\"\nrespond = {}",
       {"weir.toml:2:8: route[0].path: must begin with \"/\", not \"api\""}},
      {"[[route]]\npath = \"/a b\"\nrespond = {}",
       {"weir.toml:2:8: route[0].path: must not contain \" \""}},
      {"[[route]]\npath = \"/a\\u0001\"\nrespond = {}",
       {"weir.toml:2:8: route[0].path: must not contain a control character"}},
      {"[[route]]\npath = \"/caf\u00e9\"\nrespond = {}",
       {"weir.toml:2:8: route[0].path: must have bytes beyond ASCII percent-encoded, as in "
        "\"/caf%C3%A9\""}},
      {"[[route]]\npath = \"/a/../../b\"\nrespond = {}",
       {"weir.toml:2:8: route[0].path: must be a path that requests can have, not \"/a/../../b\": "
        "it climbs above the root or has a bad percent-escape"}},
      {"[[route]]\npath = \"/a//b\"\nrespond = {}",
       {"weir.toml:2:8: route[0].path: must not contain an empty segment (\"//\")"}},
      {"[[route]]\npath = \"/" + std::string(9000, 'a') + "\"\nrespond = {}",
       {"weir.toml:2:8: route[0].path: is longer than 8192 bytes"}},
      {"[[route]]\nheaders = {X-A = \"1\", x-a = \"2\", B = \" 1\", C = {prefix = "
       "\"\\n\"}}\nrespond = {}",
       {"weir.toml:2:23: route[0].headers.x-a: is a second condition on the same header",
        "weir.toml:2:38: route[0].headers.B: is a value that no request can have",
        "weir.toml:2:48: route[0].headers.C: is a value that no request can have"}},
      {"[[route]]\nsource = [\"::1\", \"::1\"]\nrespond = {}",
       {"weir.toml:2:18: route[0].source[1]: names \"::1\" twice"}},
      {"[[route]]\nmatch = \"regex\"\nrespond = {}",
       {"weir.toml:2:9: route[0].match: must be one of \"prefix\", \"exact\", not \"regex\""}},
      {"[[route]]\nhost = [\"http://x\", \"b:80\", \"*.*.c\", \"\u00e9.de\", \"a\", \"A\", "
       "\"-a\"]\n"
       "respond = {}",
       {"weir.toml:2:9: route[0].host[0]: \"http://x\" is not a host: write it without scheme and "
        "path",
        "weir.toml:2:21: route[0].host[1]: \"b:80\" is not a host: write it without port, an IPv6 "
        "address in brackets",
        "weir.toml:2:29: route[0].host[2]: \"*.*.c\" is not a host: a star stands only at the "
        "beginning, as in \"*.example.com\"",
        "weir.toml:2:38: route[0].host[3]: \"\u00e9.de\" is not a host: write it in its ASCII form "
        "(xn--...)",
        "weir.toml:2:51: route[0].host[5]: names \"a\" twice",
        "weir.toml:2:56: route[0].host[6]: \"-a\" is not a host such as \"example.com\", "
        "\"*.example.com\" or \"*\""}},
      {"[[route]]\nmethods = [\"get\", \"G T\", \"PUT\", \"PUT\"]\nrespond = {}",
       {"weir.toml:2:12: route[0].methods[0]: methods are upper case: \"GET\", not \"get\"",
        "weir.toml:2:19: route[0].methods[1]: \"G T\" is not a method",
        "weir.toml:2:33: route[0].methods[3]: names \"PUT\" twice"}},
      {"[[route]]\nheaders = {\"a b\" = \"c\", X = 3, Y = {prefix = \"\"}, Z = {}}\nrespond = {}",
       {"weir.toml:2:12: route[0].headers.\"a b\": is not a header name",
        "weir.toml:2:29: route[0].headers.X: must be a string (that value), true (present), false "
        "(absent) or {prefix = \"...\"}, not an integer",
        "weir.toml:2:46: route[0].headers.Y.prefix: must not be empty: true stands for any value",
        "weir.toml:2:55: route[0].headers.Z: has no prefix"}},
      {"[[route]]\nquery = {\"\" = true}\nrespond = {}",
       {"weir.toml:2:10: route[0].query.\"\": is not the name of a query parameter"}},
      {"[[route]]\nsource = [\"10.0.0.0/8\", \"x\"]\nrespond = {}",
       {"weir.toml:2:25: route[0].source[1]: must be an IP address or a block such as "
        "\"10.0.0.0/8\" without host bits, not \"x\""}},
  });
}

TEST_CASE("what a route does") {
  check({
      {"[[route]]\npath = \"/x\"",
       {"weir.toml:1:1: route[0]: has no action; give one of \"proxy\", \"redirect\", "
        "\"respond\", \"file\", \"connect\""}},
      {"[[route]]\nredirect = \"/x\"\nrespond = {}",
       {"weir.toml:3:1: route[0].respond: is a second action beside \"redirect\": a route has "
        "exactly one"}},
      {"[[route]]\nredirect = \"\"", {"weir.toml:2:12: route[0].redirect: must be a URL"}},
      {"[[route]]\nredirect = \"${host}/x\"",
       {"weir.toml:2:12: route[0].redirect: must not begin with ${query} or ${host}"}},
      {"[[route]]\nredirect = \"/$${x}\"",
       {"weir.toml:2:12: route[0].redirect: has an unknown placeholder; there are ${scheme}, "
        "${host}, ${path}, ${query}, ${uri}"}},
      {"[[route]]\nredirect = \"/a\\r\\nX: y\"",
       {"weir.toml:2:12: route[0].redirect: must be a URL with its spaces and other special "
        "characters percent-encoded"}},
      {"[[route]]\nredirect = {status = 301}", {"weir.toml:2:12: route[0].redirect: has no url"}},
      {"[[route]]\nredirect = {url = \"/\", status = 305}",
       {"weir.toml:2:33: route[0].redirect.status: a redirect's status is 301, 302, 303, 307 or "
        "308"}},
      {"[[route]]\nredirect = {url = \"/\", status = 200}",
       {"weir.toml:2:33: route[0].redirect.status: must be between 301 and 308, not 200"}},
      {"[[route]]\nrespond = {status = 100}",
       {"weir.toml:2:21: route[0].respond.status: must be between 200 and 599, not 100"}},
      {"[[route]]\nrespond = {status = 204, body = \"x\"}",
       {"weir.toml:2:11: route[0].respond: a response with status 204 cannot have a body"}},
      {"[[route]]\nrespond = {headers = {\"a b\" = \"x\"}}",
       {"weir.toml:2:23: route[0].respond.headers.\"a b\": is not a header name"}},
      {"[[route]]\nrespond = {headers = {Content-Length = \"3\"}}",
       {"weir.toml:2:23: route[0].respond.headers.Content-Length: is set by weir itself and cannot "
        "be given"}},
      {"[[route]]\nrespond = {headers = {transfer-encoding = \"chunked\", CONNECTION = \"close\"}}",
       {"weir.toml:2:23: route[0].respond.headers.transfer-encoding: is set by weir itself and "
        "cannot be given",
        "weir.toml:2:54: route[0].respond.headers.CONNECTION: is set by weir itself and cannot be "
        "given"}},
      {"[[route]]\nrespond = {headers = {A = \"x\\r\\nB: y\", C = [\"ok\", \"x\\n\"]}}",
       {"weir.toml:2:27: route[0].respond.headers.A: must not contain line ends or other control "
        "characters",
        "weir.toml:2:51: route[0].respond.headers.C[1]: must not contain line ends or other "
        "control "
        "characters"}},
      {"[[route]]\nrespond = {headers = {A = 1}}",
       {"weir.toml:2:27: route[0].respond.headers.A: must be a string, not an integer"}},
      {"[[route]]\nrespond = {content_type = \"a/b\", headers = {content-type = \"c/d\"}}",
       {"weir.toml:2:11: route[0].respond: gives the content type twice: content_type and "
        "headers"}},
  });
}

TEST_CASE("the short form") {
  check({
      {"[host_routes.a]\nurl = \"http://b\"",
       {"weir.toml:1:1: host_routes.a: has no type; one of \"Proxy\", \"Redirect\", \"Respond\", "
        "\"File\""}},
      {"[host_routes.a]\ntype = \"proxy\"",
       {"weir.toml:2:8: host_routes.a.type: must be one of \"Proxy\", \"Redirect\", \"Respond\", "
        "\"File\", not "
        "\"proxy\"; did you mean \"Proxy\"?"}},
      {"[host_routes.a]\ntype = \"Proxy\"", {"weir.toml:1:1: host_routes.a: has no url"}},
      {"[host_routes.a]\ntype = \"Proxy\"\nurl = \"b\"",
       {"weir.toml:3:7: host_routes.a.url: there is no upstream \"b\"; give it as [upstream.b], or "
        "write a URL such as \"http://127.0.0.1:3000\""}},
      {"[host_routes.a]\ntype = \"Proxy\"\nurl = \"http://b\"\nstatus = 301",
       {"weir.toml:4:1: host_routes.a.status: does not go with type = \"Proxy\""}},
      {"[host_routes.a]\ntype = \"Respond\"\nurl = \"http://b\"",
       {"weir.toml:3:1: host_routes.a.url: does not go with type = \"Respond\""}},
      {"[host_routes.a]\ntype = \"Redirect\"\nurl = \"/x\"\nstatus = 200",
       {"weir.toml:1:1: host_routes.a: a redirect's status is 301, 302, 303, 307 or 308"}},
      {"[host_routes.\"a:80\"]\ntype = \"Respond\"",
       {"weir.toml:1:14: host_routes.\"a:80\": \"a:80\" is not a host: write it without port, an "
        "IPv6 address in brackets"}},
      {"[path_routes.a.b]\ntype = \"Respond\"",
       {"weir.toml:1:16: path_routes.a.b: must begin with \"/\", not \"b\""}},
      {"[path_routes]\na = 1", {"weir.toml:2:5: path_routes.a: must be a table, not an integer"}},
      {"host_routes = 1", {"weir.toml:1:15: host_routes: must be a table, not an integer"}},
      {"[path_routes.a.\"/\"]\ntype = \"Respond\"\n[path_routes.a.\"/\".security]\nalowed_methods "
       "= 1",
       {"weir.toml:4:1: path_routes.a.\"/\".security.alowed_methods: unknown key; did you mean "
        "\"allowed_methods\"?"}},
      {"[host_routes.a]\ntype = \"File\"\nindex = \"index.html\"",
       {"weir.toml:1:1: host_routes.a: has no path"}},
      {"[host_routes.a]\ntype = \"File\"\npath = \"srv\"\nurl = \"/x\"",
       {"weir.toml:4:1: host_routes.a.url: does not go with type = \"File\""}},
      {"[host_routes.a]\ntype = \"File\"\npath = \"srv\"",
       {"weir.toml:3:8: host_routes.a.path: must be an absolute path such as \"/var/www/site\", "
        "not "
        "\"srv\""}},
      {"[host_routes.a]\ntype = \"File\"\npath = \"/srv\"\nmode = \"mmap\"",
       {"weir.toml:4:8: host_routes.a.mode: must be one of \"sendfile\", \"memory\", not "
        "\"mmap\""}},
      {"[path_routes.a.\"/\"]\ntype = \"Respond\"\nmode = \"sendfile\"",
       {"weir.toml:3:1: path_routes.a.\"/\".mode: does not go with type = \"Respond\""}},
  });
}

TEST_CASE("parts that contradict each other") {
  check({
      {"[server]\nthreads = 3\ncpus = [0, 1]",
       {"weir.toml:2:11: server.threads: is 3, but cpus names only 2"}},
      {"[server]\nmax_request_line = \"64KiB\"",
       {"weir.toml:2:20: server.max_request_line: max_request_line (64KiB) is more than "
        "max_header_size (32KiB)"}},
      {"[server]\nmax_header_size = \"2KiB\"",
       {"weir.toml:2:19: server.max_header_size: max_request_line (8KiB) is more than "
        "max_header_size (2KiB)"}},
      {"[[route]]\npath = \"/a\"\nrespond = {}\n[[route]]\npath = \"/a/\"\nrespond = {}",
       {"weir.toml:4:1: route[1]: has the same host (*), path and conditions as route[0] in line 1 "
        "and would never be used"}},
      {"[[route]]\nhost = \"a\"\nmethods = [\"GET\", \"PUT\"]\nrespond = {}\n"
       "[[route]]\nhost = [\"b\", \"A\"]\nmethods = [\"PUT\", \"GET\"]\nrespond = {}",
       {"weir.toml:5:1: route[1]: has the same host (a), path and conditions as route[0] in line 1 "
        "and would never be used"}},
      {"[[route]]\nrespond = {}\n[host_routes.default]\ntype = \"Respond\"",
       {"weir.toml:3:1: host_routes.default: has the same host (*), path and conditions as "
        "route[0] "
        "in line 1 and would never be used"}},
      {"[[route]]\npath = \"/a\"\nmatch = \"exact\"\nrespond = {}\n"
       "[[route]]\npath = \"/a/\"\nmatch = \"exact\"\nrespond = {}\n"
       "[[route]]\npath = \"/a\"\nrespond = {}\n"
       "[[route]]\npath = \"/a\"\nheaders = {X = \"1\"}\nrespond = {}\n"
       "[[route]]\npath = \"/a\"\nquery = {X = \"1\"}\nrespond = {}\n"
       "[[route]]\npath = \"/a\"\nheaders = {X = true}\nrespond = {}",
       {}},
  });
}

TEST_CASE("the environment in strings") {
  check({
      {"[server]\nserver_header = \"${NOPE}\"",
       {"weir.toml:2:17: server.server_header: environment variable NOPE is not set; a default is "
        "written ${NOPE:-default}"}},
      {"[server]\nserver_header = \"${PORT\"",
       {"weir.toml:2:17: server.server_header: has \"${\" without \"}\"; a dollar sign itself is "
        "\"$$\""}},
      {"[server]\nserver_header = \"${a b}\"",
       {"weir.toml:2:17: server.server_header: \"a b\" is not a name of an environment variable; a "
        "dollar sign itself is \"$$\""}},
      {"[[route]]\nrespond = {headers = {A = \"${LINES}\"}}",
       {"weir.toml:2:27: route[0].respond.headers.A: must not contain line ends or other control "
        "characters"}},
      {"[server]\nmax_header_fields = \"${PORT}\"",
       {"weir.toml:2:21: server.max_header_fields: must be between 8 and 128, not 8081"}},
      {"[[route]]\nredirect = \"https://${HOSTS}/\"",
       {"weir.toml:2:12: route[0].redirect: environment variable HOSTS is not set; a default is "
        "written ${HOSTS:-default}"}},
  });
}

TEST_CASE("all errors at once, in the order of the file") {
  const auto errors = errors_of(
      "[[route]]\nproxy = \"nope\"\n[upstream.a]\nservers = \"x\"\n[server]\ntreads = 1\nvia = 3");
  REQUIRE(errors.size() == 4);
  CHECK(errors[0].starts_with("weir.toml:2:9: route[0].proxy: "));
  CHECK(errors[1].starts_with("weir.toml:4:11: upstream.a.servers: "));
  CHECK(errors[2].starts_with("weir.toml:6:1: server.treads: "));
  CHECK(errors[3].starts_with("weir.toml:7:7: server.via: "));
}

TEST_CASE("a flood of errors is cut") {
  std::string text;
  for (int i = 0; i < 1500; ++i) text += "k" + std::to_string(i) + " = 1\n";
  const auto errors = errors_of(text);
  REQUIRE(errors.size() == 1001);
  CHECK(errors.back() == "weir.toml:1001:1: and 500 more");
}

TEST_CASE("syntax errors") {
  CHECK(
      lines_of(load_text("[server]\nthreads = \n").errors) ==
      std::vector<std::string>{"weir.toml:2:11: TOML: error while parsing key-value pair: expected "
                               "value, saw '\\n'"});
  const auto twice = lines_of(load_text("[server]\n[server]\n").errors);
  REQUIRE(twice.size() == 1);
  CHECK(twice[0].starts_with("weir.toml:2:"));
  CHECK(twice[0].find("cannot redefine existing table 'server'") != std::string::npos);
  CHECK_FALSE(load_text("a = \"\xff\"").ok());
  // Asserts in the library where they are on.
  CHECK(lines_of(load_text("[[[").errors) ==
        std::vector<std::string>{"weir.toml:1:3: TOML: error while parsing key: expected bare key "
                                 "starting character or string delimiter, saw '['"});
  CHECK_FALSE(load_text("a = " + std::string(100000, '[')).ok());
  // Such a key would nest tables deeper than the stack can free.
  std::string deep = "x = 1\na";
  for (int i = 0; i < 200'000; ++i) deep += ".a";
  CHECK(lines_of(load_text(deep + " = 1").errors) ==
        std::vector<std::string>{
            "weir.toml:2:1: TOML: more than 10000 dots in one line; break it into several"});
  deep.resize(7 + 2 * 10'000);
  CHECK(load_text(deep + " = 1").errors.size() > 1);
}

TEST_CASE("warnings leave the configuration usable") {
  const LoadResult none = load_text("[[listener]]\naddress = \"0.0.0.0:80\"");
  CHECK(none.ok());
  CHECK(lines_of(none.warnings) ==
        std::vector<std::string>{"weir.toml:1:1: route: there is none: every request gets 404"});
  const LoadResult unused = load_text(completed("[upstream.a]\nservers = \"b:1\""));
  CHECK(unused.ok());
  CHECK(lines_of(unused.warnings) ==
        std::vector<std::string>{"weir.toml:1:1: upstream.a: no route uses this upstream"});
}
