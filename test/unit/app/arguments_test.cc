#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <cli.h>

using weir::app::Arguments;
using weir::app::parse_arguments;
using Command = Arguments::Command;

namespace {

Arguments parsed(const std::vector<std::string>& words) {
  const auto arguments = parse_arguments(words);
  if (!arguments) FAIL(arguments.error());
  return *arguments;
}

std::string refused(const std::vector<std::string>& words) {
  const auto arguments = parse_arguments(words);
  REQUIRE_FALSE(arguments);
  CHECK_FALSE(arguments.error().empty());
  return arguments.error();
}

}  // namespace

TEST_CASE("commands, and the file they read by default") {
  CHECK(parsed({"run"}).command == Command::kRun);
  CHECK(parsed({"check"}).command == Command::kCheck);
  CHECK(parsed({"config-reference"}).command == Command::kReference);
  CHECK(parsed({"run"}).file == "/etc/weir/weir.toml");
  CHECK_FALSE(parsed({"run"}).file_given);
  for (const char* word : {"--version", "-V", "version"}) {
    CHECK(parsed({word}).command == Command::kVersion);
  }
  for (const char* word : {"--help", "-h", "help"}) {
    CHECK(parsed({word}).command == Command::kHelp);
  }
}

TEST_CASE("the file in each of its spellings; the last one counts") {
  const std::vector<std::vector<std::string>> spellings = {
      {"run", "-c", "a.toml"},
      {"run", "--config", "a.toml"},
      {"run", "--config=a.toml"},
      {"check", "-c", "b.toml", "-c", "a.toml"}};
  for (const auto& words : spellings) {
    const Arguments arguments = parsed(words);
    CHECK(arguments.file == "a.toml");
    CHECK(arguments.file_given);
  }
  CHECK(parsed({"run", "-c", "--help"}).file == "--help");  // it is the value
}

TEST_CASE("help after a command is help") {
  CHECK(parsed({"run", "--help"}).command == Command::kHelp);
  CHECK(parsed({"explain", "-h"}).command == Command::kHelp);
  CHECK(parsed({"check", "-c", "x", "-h"}).command == Command::kHelp);
}

TEST_CASE("explain takes a method, a URL, headers and a client, in any order") {
  const Arguments arguments =
      parsed({"explain", "-H", "X-A: 1", "GET", "--client", "2001:db8::1", "http://h/p?q",
              "--header=B:two:three", "-c", "f", "-H", "Empty:"});
  CHECK(arguments.command == Command::kExplain);
  CHECK(arguments.method == "GET");
  CHECK(arguments.url == "http://h/p?q");
  CHECK(arguments.client == "2001:db8::1");
  CHECK(arguments.file == "f");
  REQUIRE(arguments.headers.size() == 3);
  CHECK(arguments.headers[0] == std::pair<std::string, std::string>("X-A", "1"));
  CHECK(arguments.headers[1] == std::pair<std::string, std::string>("B", "two:three"));
  CHECK(arguments.headers[2] == std::pair<std::string, std::string>("Empty", ""));
}

TEST_CASE("cert self-signed: hosts, days, folder, and two switches") {
  const Arguments plain = parsed({"cert", "self-signed"});
  CHECK(plain.command == Command::kSelfSigned);
  CHECK(plain.hosts.empty());
  CHECK(plain.days == 365);
  CHECK(plain.folder == ".");
  CHECK_FALSE(plain.rsa);
  CHECK_FALSE(plain.force);
  const Arguments full = parsed({"cert", "self-signed", "--host", "a.test", "--rsa", "--days=7",
                                 "--host=*.a.test", "--out", "x", "--force"});
  CHECK(full.hosts == std::vector<std::string>{"a.test", "*.a.test"});
  CHECK(full.days == 7);
  CHECK(full.folder == "x");
  CHECK(full.rsa);
  CHECK(full.force);
  CHECK(parsed({"cert", "-h"}).command == Command::kHelp);
  CHECK(parsed({"cert", "self-signed", "--help"}).command == Command::kHelp);
}

TEST_CASE("what is wrong is said, with the word that is wrong") {
  CHECK(refused({}).find("command") != std::string::npos);
  CHECK(refused({"serve"}).find("serve") != std::string::npos);
  CHECK(refused({""}).find("no command") != std::string::npos);
  CHECK(refused({"run", "-c"}).find("-c") != std::string::npos);
  CHECK(refused({"run", "file.toml"}).find("file.toml") != std::string::npos);
  CHECK(refused({"run", "--confi=x"}).find("--confi=x") != std::string::npos);
  CHECK(refused({"run", "-H", "A: b"}).find("-H") != std::string::npos);
  CHECK(refused({"explain"}).find("METHOD") != std::string::npos);
  CHECK(refused({"explain", "GET"}).find("URL") != std::string::npos);
  CHECK(refused({"explain", "GET", "http://h/", "more"}).find("more") != std::string::npos);
  CHECK(refused({"explain", "GET", "/", "-H"}).find("-H") != std::string::npos);
  CHECK(refused({"explain", "GET", "/", "-H", "no colon"}).find("no colon") != std::string::npos);
  CHECK(refused({"explain", "GET", "/", "-H", ": v"}).find("Name") != std::string::npos);
  CHECK(refused({"explain", "GET", "/", "--client", "h"}).find("IP") != std::string::npos);
  CHECK(refused({"cert"}).find("self-signed") != std::string::npos);
  CHECK(refused({"cert", "renew"}).find("renew") != std::string::npos);
  CHECK(refused({"cert", "self-signed", "a.test"}).find("a.test") != std::string::npos);
  CHECK(refused({"cert", "self-signed", "-c", "f"}).find("-c") != std::string::npos);
  CHECK(refused({"cert", "self-signed", "--host"}).find("--host") != std::string::npos);
  CHECK(refused({"cert", "self-signed", "--out="}).find("--out") != std::string::npos);
  for (const char* days : {"x", "0", "-1", "7d", "99999999999"}) {
    CHECK(refused({"cert", "self-signed", "--days", days}).find(days) != std::string::npos);
  }
}

TEST_CASE("an empty file name is a mistake, not the embedded configuration") {
  CHECK_FALSE(parse_arguments({"run", "--config="}));
  CHECK_FALSE(parse_arguments({"run", "-c", ""}));
}

TEST_CASE("the help names every command and signal") {
  const std::string help(weir::app::help_text());
  for (const char* word :
       {"run", "check", "explain", "config-reference", "cert self-signed", "--version", "SIGHUP",
        "SIGTERM", "SIGQUIT", "SIGUSR1", "SIGUSR2", "exit status"}) {
    CHECK(help.find(word) != std::string::npos);
  }
}
