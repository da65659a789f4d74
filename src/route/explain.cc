// The walk of match(), in words. Not on the data path.
#include <weir/route/match.h>

#include "conditions.h"
#include "walk.h"

namespace weir::route {
namespace {

std::string host_text(const WalkStep& step) {
  switch (step.host_rule) {
    case HostRule::kExact: return "exact host " + std::string(step.host);
    case HostRule::kWildcard: return "wildcard host *" + std::string(step.host);
    case HostRule::kAny: return "any host";
  }
  return {};
}

std::string path_text(const Route& route) {
  return (route.exact ? "exact path " : "prefix ") +
         std::string(route.path.empty() ? "/" : route.path);
}

std::string route_text(const Route& route) {
  std::string text(route.origin_text.empty() ? "route " + std::to_string(route.index)
                                             : std::string(route.origin_text));
  if (!route.name.empty()) text.append(" (").append(route.name).append(")");
  return text;
}

void explain_action(const Snapshot& snapshot, const RequestView& request, const Route& route,
                    Explanation& out) {
  switch (route.kind) {
    case ActionKind::kProxy: {
      out.upstream = snapshot.upstream(route.upstream).name;
      out.action = "proxy to upstream " + out.upstream;
      const Rewrite rewrite = rewrite_path(route, request.path);
      out.result.append(rewrite.prefix).append(rewrite.rest);
      if (!request.query.empty()) out.result.append("?").append(request.query);
      return;
    }
    case ActionKind::kRedirect:
      out.action = "redirect " + std::to_string(route.status);
      if (!expand_location(route, request, out.result)) {
        out.result = "none: the location needs a host and the request has none";
      }
      return;
    case ActionKind::kRespond: out.action = "respond " + std::to_string(route.status); return;
    case ActionKind::kFile: out.action = "file " + std::string(route.file->root); return;
    case ActionKind::kConnect: out.action = "CONNECT to a listed target"; return;
  }
}

void append_line(std::string_view label, std::string_view text, std::string& out) {
  constexpr size_t kLabelWidth = 12;
  out.append(label).append(kLabelWidth - label.size(), ' ').append(text).append("\n");
}

}  // namespace

Explanation explain(const Snapshot& snapshot, const RequestView& request) {
  Explanation out;
  WalkTrace trace;
  out.route = walk(snapshot.tables(), request, &trace);
  for (const WalkStep& step : trace) {
    if (step.route != nullptr && step.failed == nullptr) {
      out.host_rule = host_text(step);
      out.path_rule = path_text(*step.route);
      continue;
    }
    ExplainStep& rejected = out.rejected.emplace_back();
    rejected.host_rule = host_text(step);
    rejected.route = step.route;
    if (step.route == nullptr) {
      rejected.reason = "no path of this host fits";
    } else {
      rejected.path_rule = path_text(*step.route);
      rejected.reason = "does not hold: " + describe(*step.failed);
    }
  }
  if (out.route == nullptr) return out;
  for (uint32_t i = 0; i < out.route->condition_count; ++i) {
    out.conditions.push_back(describe(out.route->conditions[i]));
  }
  explain_action(snapshot, request, *out.route, out);
  return out;
}

std::string to_text(const Explanation& explanation) {
  std::string out;
  if (explanation.route == nullptr) {
    append_line("route", "none fits: answered with 404", out);
  } else {
    append_line("route", route_text(*explanation.route), out);
    append_line("host", explanation.host_rule, out);
    append_line("path", explanation.path_rule, out);
    for (const std::string& condition : explanation.conditions) {
      append_line("condition", condition, out);
    }
    append_line("action", explanation.action, out);
    if (explanation.route->kind == ActionKind::kProxy)
      append_line("sends", explanation.result, out);
    if (explanation.route->kind == ActionKind::kRedirect) {
      append_line("location", explanation.result, out);
    }
  }
  for (const ExplainStep& step : explanation.rejected) {
    std::string text;
    if (step.route != nullptr) text.append(route_text(*step.route)).append(": ");
    text += step.host_rule;
    if (!step.path_rule.empty()) text.append(", ").append(step.path_rule);
    append_line("passed over", text.append(": ").append(step.reason), out);
  }
  return out;
}

}  // namespace weir::route
