// The words of `weir ctl`, and its answers in text and in JSON.
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <control_commands.h>
#include <json_writer.h>

using namespace weir;
using namespace weir::control;
using Command = ControlRequest::Command;
using route::ServerState;
using upstream::CircuitState;
using upstream::OutlierCause;

namespace {

ControlRequest parsed(std::string_view line) {
  const auto request = parse_control_request(line);
  if (!request) FAIL(request.error().text);
  return *request;
}

ControlRefusal refused(std::string_view line) {
  const auto request = parse_control_request(line);
  if (request) FAIL("taken: " << line);
  CHECK_FALSE(request.error().text.empty());
  return request.error();
}

std::string json_text(std::string_view text) {
  std::string out;
  append_json_text(out, text);
  return out;
}

std::string plain_text(std::string_view text, size_t* width = nullptr) {
  std::string out;
  const size_t seen = append_plain_text(out, text);
  if (width != nullptr) *width = seen;
  return out;
}

ServerView view_of(const std::string& upstream, uint32_t upstream_id, const std::string& name,
                   uint64_t identity) {
  ServerView view;
  view.upstream = upstream;
  view.upstream_id = upstream_id;
  view.name = view.address = name;
  view.identity = identity;
  view.resolved = true;
  return view;
}

// Two upstreams of three servers, on two cores.
struct Facts {
  Facts() {
    servers = {view_of("api", 7, "10.0.0.1:80", 1), view_of("api", 7, "10.0.0.2:80", 2),
               view_of("web", 9, "10.0.0.1:80", 1)};
    cores.resize(2);
    for (auto& core : cores) {
      core.upstreams = {{.upstream = 7}, {.upstream = 9}};
      core.servers.resize(3);
      for (size_t i = 0; i < 3; ++i) {
        core.servers[i].upstream = servers[i].upstream_id;
        core.servers[i].identity = servers[i].identity;
      }
    }
  }
  [[nodiscard]] std::string ask(std::string_view line) const {
    return report_on_upstreams(parsed(line),
                               {.servers = servers, .cores = cores, .now_ms = 100'000});
  }
  upstream::ServerSample& sample(size_t core, size_t server) { return cores[core].servers[server]; }
  std::vector<ServerView> servers;
  std::vector<upstream::UpstreamScrape> cores;
};

// The lines behind the status, and that it is right.
std::vector<std::string> lines_of(const std::string& answer, const std::string& status = "ok") {
  const size_t end = answer.find('\n');
  REQUIRE(end != std::string::npos);
  CHECK(answer.substr(0, end) == status + " " + std::to_string(answer.size() - end - 1));
  std::vector<std::string> lines;
  for (size_t at = end + 1; at < answer.size();) {
    const size_t next = answer.find('\n', at);
    REQUIRE(next != std::string::npos);
    lines.push_back(answer.substr(at, next - at));
    at = next + 1;
  }
  return lines;
}

std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words;
  for (size_t at = 0; (at = line.find_first_not_of(' ', at)) != std::string::npos;) {
    const size_t end = std::min(line.find(' ', at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

// One server of "api" in each of two ways to see it.
std::string why_of(const Facts& facts, size_t row = 0) {
  const auto lines = lines_of(facts.ask("text servers"));
  const size_t at = lines.front().find("WHY");
  return lines.at(row + 1).substr(at);
}

}  // namespace

TEST_CASE("commands in their formats") {
  CHECK(parsed("text upstreams").command == Command::kUpstreams);
  CHECK(parsed("text upstreams").format == ControlFormat::kText);
  CHECK(parsed("json upstreams").format == ControlFormat::kJson);
  CHECK(parsed("  json   help  ").command == Command::kHelp);
  CHECK(parsed("json version").command == Command::kVersion);
  CHECK(parsed("json reload").command == Command::kReload);
  CHECK(parsed("text servers").upstream.empty());
  CHECK(parsed("text servers api").upstream == "api");
  CHECK(parsed("text servers").wants_numbers());
  CHECK(parsed("text upstreams").wants_numbers());
  CHECK_FALSE(parsed("text set a b up").wants_numbers());
  const ControlRequest set = parsed("text set api 10.0.0.1:80 drain");
  CHECK(set.command == Command::kSet);
  CHECK((set.upstream == "api" && set.server == "10.0.0.1:80"));
  CHECK(set.state == ServerState::kDraining);
  CHECK(parsed("text set a b draining").state == ServerState::kDraining);
  CHECK(parsed("text set a b down").state == ServerState::kDown);
  CHECK(parsed("text set a b up").state == ServerState::kUp);
  CHECK(parsed("json weight a b 0").weight == 0);
  CHECK(parsed("json weight a b 1000000").weight == 1'000'000);
}

TEST_CASE("words in quotes") {
  CHECK(parsed(R"(text servers "a b")").upstream == "a b");
  CHECK(parsed(R"(text set "" "unix:/a \"b\" \\c" up)").server == R"(unix:/a "b" \c)");
  CHECK(parsed(R"(text set "" x up)").upstream.empty());
  CHECK(parsed(R"(text servers a"b)").upstream == R"(a"b)");
  refused(R"(text servers "a)");
  refused(R"(text servers "a\")");
  refused(R"(text servers "a"b)");
}

TEST_CASE("what is no request is refused with a sentence") {
  for (const char* line : {"",
                           " ",
                           "text",
                           "json",
                           "upstreams",
                           "xml upstreams",
                           "text list",
                           "text upstreams x",
                           "text servers a b",
                           "text set a b",
                           "text set a b c",
                           "text set a b ejected",
                           "text set a b up now",
                           "text weight a b",
                           "text weight a b x",
                           "text weight a b -1",
                           "text weight a b 1000001",
                           "text weight a b 99999999999999999999999",
                           "text weight a b 1.5",
                           "text version x",
                           "text reload x",
                           "text help x",
                           "GET / HTTP/1.1",
                           "TEXT upstreams",
                           "text\tupstreams",
                           "text servers a\x01"
                           "b",
                           "text servers \x7f"}) {
    CAPTURE(line);
    refused(line);
  }
  CHECK(refused("json nonsense").format == ControlFormat::kJson);
  CHECK(refused("text nonsense").format == ControlFormat::kText);
  CHECK(refused("GET /").format == ControlFormat::kText);
  CHECK(refused(std::string("text servers a\0b", 16)).text.contains("control"));
  CHECK(refused("text set a b sideways").text.contains("\"sideways\""));
  CHECK(refused("text set a b").text.contains("UPSTREAM SERVER up|drain|down"));
}

TEST_CASE("text that may come from anywhere cannot break out") {
  CHECK(json_text("a\"b\\c") == R"(a\"b\\c)");
  CHECK(json_text("a\nb\x1b[31m\x7f") == "a\\u000ab\\u001b[31m\\u007f");
  CHECK(json_text("\xc3\xa4 \xe2\x82\xac \xf0\x9f\x8c\x8d") ==
        "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x8c\x8d");
  // Not UTF-8: a lone byte, overlong, a surrogate, past the end, cut off.
  CHECK(json_text("\xff") == "\\u00ff");
  CHECK(json_text("\xc0\xaf") == "\\u00c0\\u00af");
  CHECK(json_text("\xe0\x80\xaf") == "\\u00e0\\u0080\\u00af");
  CHECK(json_text("\xed\xa0\x80") == "\\u00ed\\u00a0\\u0080");
  CHECK(json_text("\xf4\x90\x80\x80") == "\\u00f4\\u0090\\u0080\\u0080");
  CHECK(json_text("a\xe2\x82") == "a\\u00e2\\u0082");
  // A line separator, a mark that turns the text around, a C1 control.
  CHECK(json_text("\xe2\x80\xa8\xe2\x80\xae\xc2\x9b") == "\\u2028\\u202e\\u009b");
  // Marks that are seen nowhere but in their neighbours; a joiner is part of a script.
  CHECK(json_text("\xd8\x9c\xe2\x80\x8e\xe2\x80\x8f\xef\xbb\xbf\xe2\x80\x8d") ==
        "\\u061c\\u200e\\u200f\\ufeff\xe2\x80\x8d");
  CHECK(json_text(std::string_view("\0", 1)) == "\\u0000");

  size_t width = 0;
  CHECK(plain_text("a\n\x1b[31m", &width) == "a\\x0a\\x1b[31m");
  CHECK(width == 13);
  CHECK(plain_text("\xc3\xa4\xe2\x80\xae\xff", &width) == "\xc3\xa4\\u202e\\xff");
  CHECK(width == 11);
}

TEST_CASE("JSON is put together with its commas") {
  JsonWriter json;
  json.begin_object().field("a", 1u).key("b").begin_array().end_array().key("c").begin_array();
  json.number(1).text("x").begin_object().end_object().begin_object().field("d", true);
  json.end_object().end_array().field("e", "").field("f", UINT64_MAX).end_object();
  CHECK(json.out() ==
        R"({"a":1,"b":[],"c":[1,"x",{},{"d":true}],"e":"","f":18446744073709551615})");
}

TEST_CASE("durations for people") {
  CHECK(human_duration(0) == "0us");
  CHECK(human_duration(999) == "999us");
  CHECK(human_duration(1'000) == "1ms");
  CHECK(human_duration(12'345) == "12.3ms");
  CHECK(human_duration(999'999) == "999.9ms");
  CHECK(human_duration(1'000'000) == "1s");
  CHECK(human_duration(4'250'000) == "4.2s");
  CHECK(human_duration(60'000'000) == "1m00s");
  CHECK(human_duration(725'000'000) == "12m05s");
  CHECK(human_duration(12'000'000'000) == "3h20m");
  CHECK(human_duration(356'400'000'000) == "4d03h");
}

TEST_CASE("upstreams are added up over servers and cores") {
  Facts facts;
  facts.servers[1].state = ServerState::kDown;
  facts.servers[2].state = ServerState::kDraining;
  for (size_t core = 0; core < 2; ++core) {
    const uint32_t n = core == 0 ? 1 : 100;
    facts.cores[core].upstreams[0] = {.upstream = 7,
                                      .active = 1 * n,
                                      .pending = 2 * n,
                                      .waited = 3 * n,
                                      .pending_refused = 4 * n,
                                      .retries = 5 * n,
                                      .retries_refused = 6 * n,
                                      .hedged = 7 * n};
    facts.sample(core, 0).counts = {
        .requests = 10 * n, .answers = n, .failures = 2 * n, .latency_us_sum = 50'000 * n};
    facts.sample(core, 1).counts = {
        .requests = 20 * n, .answers = n, .failures = 3 * n, .latency_us_sum = 10'000 * n};
  }
  facts.sample(1, 0).state = ServerState::kEjected;
  // Of an upstream that is not there (any more).
  facts.cores[0].upstreams.push_back({.upstream = 8, .active = 1'000'000});
  CHECK(facts.ask("json upstreams") ==
        R"({"ok":true,"cores":2,"upstreams":[)"
        R"({"name":"api","servers":2,"up":1,"draining":0,"down":1,"ejected":1,"active":101,)"
        R"("pending":202,"waited":303,"refused":404,"retries":505,"retries_refused":606,)"
        R"("hedged":707,"requests":3030,"answers":202,"failures":505,"latency_mean_us":30000},)"
        R"({"name":"web","servers":1,"up":0,"draining":1,"down":0,"ejected":0,"active":0,)"
        R"("pending":0,"waited":0,"refused":0,"retries":0,"retries_refused":0,)"
        R"("hedged":0,"requests":0,"answers":0,"failures":0,"latency_mean_us":0}]})"
        "\n");
  const auto lines = lines_of(facts.ask("text upstreams"));
  REQUIRE(lines.size() == 3);
  CHECK(words_of(lines[0]).size() == 16);
  CHECK(words_of(lines[1]) == std::vector<std::string>{"api", "2", "1", "0", "1", "1", "101", "202",
                                                       "303", "404", "505", "606", "707", "3030",
                                                       "505", "30ms"});
  CHECK(words_of(lines[2]).back() == "-");
  CHECK(lines[1].size() == lines[0].size());
  CHECK(lines[2].size() == lines[0].size());
}

TEST_CASE("servers are added up over the cores") {
  Facts facts;
  facts.servers[0].checked = true;
  facts.servers[0].health = {.healthy = true,
                             .last = HealthResult::kPassed,
                             .reason = "200",
                             .status = 200,
                             .passed_row = 4,
                             .passed = 5,
                             .failed = 1,
                             .changes = 2,
                             .since_ms = 90'000,
                             .checked_ms = 99'000,
                             .duration_us = 321};
  facts.servers[0].weight = 3;
  facts.sample(0, 0) = {.upstream = 7,
                        .identity = 1,
                        .active = 1,
                        .idle = 2,
                        .ejections = 3,
                        .counts = {.requests = 40,
                                   .answers = 30,
                                   .failures = 5,
                                   .latency_us_sum = 60'000,
                                   .latency_us = 1'000}};
  facts.sample(1, 0) = {.upstream = 7,
                        .identity = 1,
                        .state = ServerState::kEjected,
                        .circuit = CircuitState::kHalfOpen,
                        .cause = OutlierCause::kRatio,
                        .active = 10,
                        .idle = 20,
                        .ejections = 30,
                        .counts = {.requests = 400,
                                   .answers = 10,
                                   .failures = 50,
                                   .latency_us_sum = 60'000,
                                   .latency_us = 5'000}};
  const std::string answer = facts.ask("json servers api");
  CHECK(answer.starts_with(
      R"({"ok":true,"cores":2,"servers":[{"upstream":"api","name":"10.0.0.1:80",)"
      R"("address":"10.0.0.1:80","resolved":true,"state":"up","set":"up",)"
      R"("why":"ejected on 1 of 2 cores: too many errors; circuit half-open on 1 of 2 cores; )"
      R"(weight set, configured is 1","cores_ejected":1,"cores_circuit_open":0,)"
      R"("cores_circuit_half_open":1,"weight":3,"weight_configured":1,"priority":0,)"
      R"("backup":false,"max_connections":0,"active":11,"idle_connections":22,"requests":440,)"
      R"("answers":40,"failures":55,"ejections":33,"latency_us":2000,"latency_mean_us":3000,)"
      R"("health":{"checked":true,"healthy":true,"since_ms_ago":10000,"last":)"));
  CHECK(answer.contains(R"("reason":"200","last_ms_ago":1000,"last_us":321,"status":200,)"
                        R"("passed":5,"failed":1,"passed_in_a_row":4,"failed_in_a_row":0,)"
                        R"("changes":2}},{"upstream":"api","name":"10.0.0.2:80",)"));
  CHECK(answer.ends_with("\"health\":{\"checked\":false}}]}\n"));
  CHECK_FALSE(answer.contains("web"));

  const auto lines = lines_of(facts.ask("text servers"));
  REQUIRE(lines.size() == 4);
  CHECK(words_of(lines[0]).size() == 15);
  const auto row = words_of(lines[1]);
  CHECK(std::vector<std::string>(row.begin(), row.begin() + 16) ==
        std::vector<std::string>{"api", "10.0.0.1:80", "-", "up", "1/2", "3", "11", "22", "440",
                                 "40", "55", "33", "2ms", "good", "10s", "ejected"});
  // Columns stand below their names.
  CHECK(lines[1].find("up") == lines[0].find("STATE"));
  CHECK(lines[1].find("1/2") + 3 == lines[0].find("EJECTED") + 7);
  CHECK(lines[1].find("2ms") + 3 == lines[0].find("LATENCY") + 7);
  CHECK(lines[1].find("good") == lines[0].find("CHECK"));
  CHECK(lines[2].find(" - ") == lines[1].find(" - "));
  CHECK(lines[3].starts_with("web "));
  CHECK(words_of(lines[2]).back() == "-");
  CHECK(lines_of(facts.ask("text servers web")).size() == 2);
}

TEST_CASE("latencies of many answers do not overflow") {
  Facts facts;
  for (size_t core = 0; core < 2; ++core) {
    facts.sample(core, 0).counts = {.answers = UINT64_MAX / 4, .latency_us = 1'000'000'000};
  }
  CHECK(facts.ask("json servers api").contains("\"latency_us\":1000000000,"));
}

TEST_CASE("a server that the cores do not know yet has no numbers, and is there") {
  Facts facts;
  facts.servers.push_back(view_of("api", 7, "10.0.0.9:80", 99));
  CHECK(lines_of(facts.ask("text servers api")).size() == 4);
  CHECK(facts.ask("json upstreams").contains(R"({"name":"api","servers":3,"up":3,)"));
}

TEST_CASE("why a server does not get its share") {
  Facts facts;
  ServerView& view = facts.servers[0];
  CHECK(why_of(facts) == "-");

  SECTION("an operator") {
    view.set = ServerState::kDraining;
    CHECK(why_of(facts) == "set to draining");
  }
  SECTION("its checks, with what the server said") {
    view.checked = true;
    view.health.healthy = false;
    view.health.reason = "status 500 \x1b[31m\n";
    view.health.since_ms = 100'000;
    CHECK(why_of(facts) == "check failed: status 500 \\x1b[31m\\x0a");
    CHECK(lines_of(facts.ask("text servers"))[1].contains("  bad 0s  "));
    CHECK(facts.ask("json servers").contains(R"("reason":"status 500 \u001b[31m\u000a")"));
  }
  SECTION("its checks, which do not fail any more") {
    view.checked = true;
    view.health.healthy = false;
    view.health.passed_row = 1;
    view.health.reason = "status 200";
    CHECK(why_of(facts) == "checks pass again: 1 in a row so far");
  }
  SECTION("the last check") {
    view.checked = true;
    view.health.failed_row = 1;
    view.health.reason = "connection refused";
    CHECK(why_of(facts) == "last check failed: connection refused");
  }
  SECTION("its name, without an address") {
    view.resolved = false;
    view.name = view.address = "app:80";
    CHECK(why_of(facts) == "no address: not known yet");
    CHECK(facts.ask("json servers").contains(R"("state":"unresolved")"));
    CHECK(facts.ask("json upstreams").contains(R"("servers":2,"up":1)"));
    view.trouble = "there is no such name";
    CHECK(why_of(facts) == "no address: there is no such name");
    CHECK(facts.ask("json servers").contains(R"("name":"app:80","address":"","resolved":false)"));
  }
  SECTION("its name, while the old address serves") {
    view.name = "app:80";
    view.trouble = "the name servers do not answer";
    CHECK(why_of(facts) == "its name: the name servers do not answer");
    CHECK(words_of(lines_of(facts.ask("text servers"))[1])[2] == "10.0.0.1:80");
  }
  SECTION("passive checks of both cores, and an open circuit that counts once a core") {
    for (size_t core = 0; core < 2; ++core) {
      facts.sample(core, 0).state = ServerState::kEjected;
      facts.sample(core, 0).cause = OutlierCause::kConsecutive;
    }
    facts.sample(0, 0).circuit = CircuitState::kOpen;
    CHECK(why_of(facts) ==
          "ejected on 2 of 2 cores: errors in a row; circuit open on 1 of 2 cores");
    CHECK(words_of(lines_of(facts.ask("text servers"))[1])[4] == "2/2");
  }
  SECTION("a circuit alone is no ejection by passive checks") {
    facts.sample(0, 0).state = ServerState::kEjected;
    facts.sample(0, 0).circuit = CircuitState::kOpen;
    CHECK(why_of(facts) == "circuit open on 1 of 2 cores");
    CHECK(facts.ask("json servers").contains(R"("cores_ejected":0,"cores_circuit_open":1)"));
    CHECK(facts.ask("json upstreams").contains(R"("ejected":1)"));
  }
  SECTION("one core needs no counting") {
    facts.cores.resize(1);
    facts.sample(0, 0).state = ServerState::kEjected;
    facts.sample(0, 0).cause = OutlierCause::kLatency;
    CHECK(why_of(facts) == "ejected: slower than the others");
  }
}

TEST_CASE("an upstream that is not there") {
  const Facts facts;
  CHECK(lines_of(facts.ask("text servers a\xc3\xa4"), "failed").front() ==
        "there is no upstream \"a\xc3\xa4\"");
  CHECK(facts.ask("json servers \"\\\"\"") ==
        "{\"ok\":false,\"kind\":\"failed\",\"error\":\"there is no upstream \\\"\\\"\\\"\"}\n");
  const auto none = report_on_upstreams(parsed("text upstreams"), {});
  CHECK(lines_of(none).size() == 1);
}

TEST_CASE("orders are passed on, and confirmed") {
  Facts facts;
  std::string seen;
  ControlHooks hooks;
  hooks.servers = [&] { return facts.servers; };
  hooks.set_state = [&](std::string_view upstream, std::string_view name,
                        ServerState state) -> std::expected<void, std::string> {
    seen.append(upstream).append(" ").append(name).append(" ").append(word_of(state));
    if (upstream == "bad") return std::unexpected("no such \"upstream\"");
    for (ServerView& view : facts.servers) {
      if (view.upstream == upstream) view.state = state;
    }
    return {};
  };
  hooks.set_weight = [&](std::string_view, std::string_view,
                         uint32_t weight) -> std::expected<void, std::string> {
    seen = std::to_string(weight);
    return {};
  };
  const auto run = [&](std::string_view line) {
    seen.clear();
    return execute_control_request(parsed(line), hooks);
  };
  CHECK(run("json set api 10.0.0.1:80 drain") ==
        "{\"ok\":true,\"upstream\":\"api\",\"server\":\"10.0.0.1:80\",\"set\":\"draining\","
        "\"servers_up\":0}\n");
  CHECK(seen == "api 10.0.0.1:80 draining");
  const auto drained = lines_of(run("text set api 10.0.0.1:80 drain"));
  CHECK(drained == std::vector<std::string>{"10.0.0.1:80 of api: draining",
                                            "note: no server of api is up now"});
  CHECK(lines_of(run("text set api 10.0.0.1:80 up")).size() == 1);
  CHECK(lines_of(run("text weight web 10.0.0.1:80 12")).front() == "10.0.0.1:80 of web: weight 12");
  CHECK(seen == "12");
  CHECK(run("json weight web 10.0.0.1:80 0").contains(R"("weight":0,"servers_up":1})"));
  CHECK(lines_of(run("text set bad x up"), "failed").front() == "no such \"upstream\"");
  CHECK(run("json set bad x up") ==
        "{\"ok\":false,\"kind\":\"failed\",\"error\":\"no such \\\"upstream\\\"\"}\n");
}

TEST_CASE("reload, version and help") {
  ControlHooks hooks;
  const auto run = [&](std::string_view line) {
    return execute_control_request(parsed(line), hooks);
  };
  CHECK(lines_of(render_reload(ControlFormat::kText, 5)).front() == "reloaded: generation 5");
  CHECK(render_reload(ControlFormat::kJson, 5) == "{\"ok\":true,\"generation\":5}\n");
  const std::string wrong = render_reload(ControlFormat::kText, std::unexpected("it is wrong"));
  CHECK(lines_of(wrong, "failed").front() == "it is wrong");
  CHECK(run("json version").starts_with(R"({"ok":true,"version":")"));
  CHECK(lines_of(run("text version")).front().starts_with("weir "));
  CHECK(run("json version").find(R"("draining":false)") != std::string::npos);
  hooks.draining = [] { return true; };
  CHECK(run("json version").find(R"("draining":true)") != std::string::npos);
  CHECK(lines_of(run("text version")).front().ends_with(", shutting down"));
  const std::string help = run("text help");
  const std::string json_help = run("json help");
  for (const char* word : {"upstreams", "servers", "set", "weight", "reload", "version", "help"}) {
    CHECK(help.contains(std::string("\n") + word));
    CHECK(json_help.contains(std::string("\"") + word));
  }
}
