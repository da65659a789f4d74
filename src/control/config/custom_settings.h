// The readers of settings that are more than a scalar, as the schema names them. Each reads one
// value, reports what is wrong with it and leaves the object alone in that case.
#pragma once

#include "reader.h"
#include "route_draft.h"

namespace weir::control::config {

// listeners.cc, object: Listener; read_listen: ServerSettings (it adds to Config::listeners)
void read_listener_address(Reader& reader, const TableEntry& entry, void* object);
void read_redirect_https(Reader& reader, const TableEntry& entry, void* object);
void read_listen(Reader& reader, const TableEntry& entry, void* object);
void read_listeners(Reader& reader, const Node& list, const KeyPath& path);  // [[listener]]

// tls.cc, object: TlsSettings; read_hostnames: CertificateFiles
void read_ciphers(Reader& reader, const TableEntry& entry, void* object);
void read_ciphersuites(Reader& reader, const TableEntry& entry, void* object);
void read_groups(Reader& reader, const TableEntry& entry, void* object);
void read_alpn(Reader& reader, const TableEntry& entry, void* object);
void read_ticket_key_files(Reader& reader, const TableEntry& entry, void* object);
void read_certificates(Reader& reader, const TableEntry& entry, void* object);
void read_hostnames(Reader& reader, const TableEntry& entry, void* object);
void read_tls(Reader& reader, const Node& table, const KeyPath& path);  // [tls]
std::string_view check_file_path(const ScalarValue& value);
std::string_view check_whole_seconds(const ScalarValue& value);
std::string_view check_server_name(const ScalarValue& value);

// machine.cc, object: ServerSettings, SecuritySettings
void read_threads(Reader& reader, const TableEntry& entry, void* object);
void read_cpus(Reader& reader, const TableEntry& entry, void* object);
void read_trusted_proxies(Reader& reader, const TableEntry& entry, void* object);
std::vector<base::Cidr> read_blocks(Reader& reader, const TableEntry& entry, bool empty_allowed);

// upstreams.cc, object: UpstreamSettings (the base of Upstream); read_server_address:
// UpstreamServer
void read_servers(Reader& reader, const TableEntry& entry, void* object);
void read_server_address(Reader& reader, const TableEntry& entry, void* object);
void read_upstreams(Reader& reader, const Node& table, const KeyPath& path);
void read_upstream_defaults(Reader& reader, const Node& table, const KeyPath& path);
// Index of the upstream that `proxy` or `url` names, and the path to put in place of the route's.
std::optional<route::ProxyAction> read_proxy_target(Reader& reader, const Node& node,
                                                    const KeyPath& path);
// The upstream that is a server without a section of its own; made where it is not known yet.
uint32_t implicit_upstream(Reader& reader, std::string name, UpstreamServer server,
                           const Place& place);

std::string_view check_host_header(const ScalarValue& value);

// health.cc, object: UpstreamSettings; read_check_headers, read_expected_status: HealthSettings
void read_health_check(Reader& reader, const TableEntry& entry, void* object);
void read_check_headers(Reader& reader, const TableEntry& entry, void* object);
void read_expected_status(Reader& reader, const TableEntry& entry, void* object);
void read_passive_check(Reader& reader, const TableEntry& entry, void* object);
void read_circuit_breaker(Reader& reader, const TableEntry& entry, void* object);
void read_health_defaults(Reader& reader, const Node& table,
                          const KeyPath& path);  // [health_check]
std::string_view check_method(const ScalarValue& value);
std::string_view check_check_path(const ScalarValue& value);
std::string_view check_expected_body(const ScalarValue& value);

// failover.cc, object: UpstreamSettings
void read_retry_on(Reader& reader, const TableEntry& entry, void* object);
void read_sticky(Reader& reader, const TableEntry& entry, void* object);
// `path`: of the table that has given some of them.
void check_retries(Reader& reader, const KeyPath& path, const UpstreamSettings& settings);
std::string_view check_cookie_name(const ScalarValue& value);
std::string_view check_cookie_path(const ScalarValue& value);
std::string_view check_same_site(const ScalarValue& value);

// service.cc, object: ResolverSettings, ControlSettings
void read_name_servers(Reader& reader, const TableEntry& entry, void* object);
void read_socket_mode(Reader& reader, const TableEntry& entry, void* object);
void read_resolver(Reader& reader, const Node& table, const KeyPath& path);  // [resolver]
std::string_view check_control_socket(const ScalarValue& value);
inline constexpr uint32_t kDefaultSocketMode = 0600;

// routes.cc, object: RouteDraft
void read_hosts(Reader& reader, const TableEntry& entry, void* object);
void read_route_path(Reader& reader, const TableEntry& entry, void* object);
void read_methods(Reader& reader, const TableEntry& entry, void* object);
void read_header_conditions(Reader& reader, const TableEntry& entry, void* object);
void read_query_conditions(Reader& reader, const TableEntry& entry, void* object);
void read_source(Reader& reader, const TableEntry& entry, void* object);
void read_proxy(Reader& reader, const TableEntry& entry, void* object);
void read_redirect(Reader& reader, const TableEntry& entry, void* object);
void read_respond(Reader& reader, const TableEntry& entry, void* object);
void read_connect(Reader& reader, const TableEntry& entry, void* object);
void read_upgrade(Reader& reader, const TableEntry& entry, void* object);
void read_routes(Reader& reader, const Node& list, const KeyPath& path);  // [[route]]
std::vector<std::string> read_method_list(Reader& reader, const TableEntry& entry);
// Notes the action that the table gives; false (reported) when it has one already.
bool begin_action(Reader& reader, const TableEntry& entry, RouteDraft& draft);
std::string_view check_name(const ScalarValue& value);

// files.cc, object: route::FileAction; read_file: RouteDraft, read_mime_types: MimeSettings
void read_file(Reader& reader, const TableEntry& entry, void* object);
void read_file_root(Reader& reader, const TableEntry& entry, void* object);
void read_file_index(Reader& reader, const TableEntry& entry, void* object);
void read_file_fallback(Reader& reader, const TableEntry& entry, void* object);
void read_error_pages(Reader& reader, const TableEntry& entry, void* object);
void read_mime_types(Reader& reader, const TableEntry& entry, void* object);
std::string_view check_media_type(const ScalarValue& value);
std::string_view check_charset(const ScalarValue& value);
std::string_view check_optional_absolute(const ScalarValue& value);

// tunnels.cc
std::vector<std::string> read_protocols(Reader& reader, const TableEntry& entry);
route::ConnectAction read_connect_targets(Reader& reader, const TableEntry& entry);
// What a CONNECT route has to look like beside its targets.
void finish_connect(Reader& reader, const Node& table, const KeyPath& path, RouteDraft& draft);

// actions.cc, object: RedirectDraft, RespondDraft
void read_location(Reader& reader, const TableEntry& entry, void* object);
void read_response_headers(Reader& reader, const TableEntry& entry, void* object);
// Checks the parts against each other; false after an error.
bool finish_respond(Reader& reader, const RespondDraft& draft, const Place& place,
                    const KeyPath& path, route::RespondAction& action);
inline constexpr std::string_view kRedirectStatusComplaint =
    "a redirect's status is 301, 302, 303, 307 or 308";
bool is_redirect_status(int64_t status) noexcept;
std::string_view check_field_text(const ScalarValue& value);
bool set_location(Reader& reader, const Node& node, const KeyPath& path, std::string& location);

// short_form.cc, object: ShortDraft
void read_short_type(Reader& reader, const TableEntry& entry, void* object);
void read_short_url(Reader& reader, const TableEntry& entry, void* object);
void read_short_file(Reader& reader, const TableEntry& entry, void* object);
void read_short_headers(Reader& reader, const TableEntry& entry, void* object);
void read_short_security(Reader& reader, const TableEntry& entry, void* object);
void read_allowed_methods(Reader& reader, const TableEntry& entry, void* object);
void read_host_routes(Reader& reader, const Node& table, const KeyPath& path);
void read_path_routes(Reader& reader, const Node& table, const KeyPath& path);

}  // namespace weir::control::config
