// weir: the program.
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include <weir/control/config/schema.h>
#include <weir/runtime/probe.h>

#include "build_info.h"
#include "cli.h"

namespace {

void print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void print_version() {
  std::printf("weir %s\nbuilt with %s: %s\n", WEIR_VERSION, WEIR_COMPILER, WEIR_OPTIONS);
  const weir::runtime::ProbeReport probe = weir::runtime::probe_kernel();
  for (const std::string& feature : probe.features) std::printf("has: %s\n", feature.c_str());
  for (const std::string& remark : probe.remarks) std::printf("note: %s\n", remark.c_str());
  if (!probe.usable) {
    std::printf("cannot serve here: %s\nwhat to do: %s\n", probe.cause.c_str(), probe.cure.c_str());
  }
}

}  // namespace

int main(int count, char** words) {
  using weir::app::Arguments;
  const auto arguments =
      weir::app::parse_arguments(std::vector<std::string>(words + 1, words + count));
  if (!arguments) {
    std::fprintf(stderr, "weir: %s\nTry: weir --help\n", arguments.error().c_str());
    return 2;
  }
  switch (arguments->command) {
    case Arguments::Command::kHelp: print(weir::app::help_text()); return 0;
    case Arguments::Command::kVersion: print_version(); return 0;
    case Arguments::Command::kReference:
      std::fputs(weir::control::config::render_reference().c_str(), stdout);
      return 0;
    case Arguments::Command::kCheck: return weir::app::command_check(*arguments);
    case Arguments::Command::kExplain: return weir::app::command_explain(*arguments);
    case Arguments::Command::kSelfSigned: return weir::app::command_self_signed(*arguments);
    case Arguments::Command::kControl: return weir::app::command_control(*arguments);
    case Arguments::Command::kRun: return weir::app::command_run(*arguments);
  }
  return 2;
}
