#include <weir/log/format.h>

#include <algorithm>

#include "pen.h"

namespace weir::log {

namespace {

constexpr int64_t kSecondUs = 1'000'000;
constexpr int64_t kDay = 86'400;
constexpr int64_t kTimeMaxUs = 253'402'300'799 * kSecondUs;  // the end of year 9999
// Room for everything but peers' strings: keys, numbers, times, address. The longest line of each
// format (every number at its maximum) takes less than half of it; format_test.cc shows that.
constexpr size_t kFixedBytesMax = 2048;

struct Date {
  uint64_t year;
  uint64_t month;  // 1..12
  uint64_t day;
};

// Howard Hinnant's civil_from_days, for days since 1970 and not before it.
constexpr Date date_of(uint64_t days) noexcept {
  const uint64_t z = days + 719'468;
  const uint64_t era = z / 146'097;
  const uint64_t day_of_era = z % 146'097;
  const uint64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const uint64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const uint64_t shifted = (5 * day_of_year + 2) / 153;  // months from March
  const uint64_t month = shifted < 10 ? shifted + 3 : shifted - 9;
  return {year_of_era + era * 400 + (month <= 2 ? 1 : 0), month,
          day_of_year - (153 * shifted + 2) / 5 + 1};
}

constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";

int64_t clamp_time(int64_t time_us) noexcept { return std::clamp<int64_t>(time_us, 0, kTimeMaxUs); }

size_t string_bytes(const AccessRecord& r) noexcept {
  return r.method.size() + r.host.size() + r.path.size() + r.user_agent.size() + r.referer.size() +
         r.upstream.size() + r.upstream_address.size() + r.tls_cipher.size() + r.tls_why.size() +
         r.tls_client_subject.size() + r.tls_client_fingerprint.size();
}

size_t string_bytes(const Event& event) noexcept {
  size_t bytes = event.component.size() + event.message.size();
  // Per field: blank, equals sign or quotes, colon and comma.
  for (size_t i = 0; i < event.field_count; ++i) {
    bytes += event.fields[i].key.size() + event.fields[i].value.size() + 6;
  }
  return bytes;
}

// Grows `out` to the bound, lets `write` fill it through a Pen, and cuts it to what was written.
template <class Write>
void append_with(std::string& out, size_t strings, Write&& write) {
  const size_t before = out.size();
  const size_t bound = before + kFixedBytesMax + strings * Pen::kGrowthMax;
  if (bound > out.capacity()) out.reserve(std::max(bound, 2 * out.capacity()));
  out.resize_and_overwrite(bound, [&](char* data, size_t) {
    Pen pen(data + before);
    write(pen);
    return static_cast<size_t>(pen.at() - data);
  });
}

void put_protocol(Pen& pen, const AccessRecord& r) {
  pen.put("HTTP/");
  pen.number(r.protocol_major);
  pen.put('.');
  pen.number(r.protocol_minor);
}

void put_client(Pen& pen, const AccessRecord& r) {
  if (r.client_is_unix) {
    pen.put("unix");
  } else {
    pen.ip(r.client);
  }
}

void put_duration(Pen& pen, std::string_view key, uint64_t microseconds) {
  if (microseconds == AccessRecord::kNotMeasured) return;
  pen.put(key);
  pen.milliseconds(microseconds);
}

void put_string(Pen& pen, std::string_view key, std::string_view value) {
  pen.put(key);
  pen.json_text(value);
  pen.put('"');
}

void put_json_upstream(Pen& pen, const AccessRecord& r) {
  put_string(pen, ",\"upstream\":\"", r.upstream);
  put_string(pen, ",\"upstream_address\":\"", r.upstream_address);
  put_duration(pen, ",\"upstream_connect_ms\":", r.upstream_connect_us);
  put_duration(pen, ",\"upstream_header_ms\":", r.upstream_header_us);
  put_duration(pen, ",\"upstream_ms\":", r.upstream_us);
  pen.put(r.upstream_reused ? ",\"upstream_reused\":true" : ",\"upstream_reused\":false");
  pen.put(",\"tries\":");
  pen.number(r.tries);
}

// As OpenSSL, nginx and HAProxy write it.
void put_tls_version(Pen& pen, uint16_t version) {
  const uint32_t minor = version & 0xffu;
  if (version >> 8 != 3 || minor == 0) {
    pen.put("unknown");
    return;
  }
  pen.put("TLSv1.");
  pen.number(minor - 1);
}

void put_json_tls(Pen& pen, const AccessRecord& r) {
  pen.put(",\"tls\":\"");
  put_tls_version(pen, r.tls_version);
  pen.put('"');
  put_string(pen, ",\"tls_cipher\":\"", r.tls_cipher);
  if (r.tls_kernel) {
    pen.put(",\"tls_records\":\"kernel\"");
  } else {
    pen.put(",\"tls_records\":\"userspace\"");
    put_string(pen, ",\"tls_why\":\"", r.tls_why);
  }
  pen.put(r.tls_resumed ? ",\"tls_resumed\":true" : ",\"tls_resumed\":false");
  if (r.tls_client_fingerprint.empty()) return;
  put_string(pen, ",\"tls_client\":\"", r.tls_client_subject);
  put_string(pen, ",\"tls_client_sha256\":\"", r.tls_client_fingerprint);
}

void put_json_request(Pen& pen, const AccessRecord& r) {
  pen.put("Z\",\"request_id\":\"");
  pen.hex16(r.request_id_high);
  pen.hex16(r.request_id_low);
  pen.put("\",\"client\":\"");
  put_client(pen, r);
  pen.put("\",\"client_port\":");
  pen.number(r.client_port);
  pen.put(",\"listener\":");
  pen.number(r.listener);
  put_string(pen, ",\"method\":\"", r.method);
  put_string(pen, ",\"host\":\"", r.host);
  put_string(pen, ",\"path\":\"", r.path);
  pen.put(",\"protocol\":\"");
  put_protocol(pen, r);
  pen.put("\",\"status\":");
  pen.number(r.status);
  pen.put(",\"bytes_in\":");
  pen.number(r.bytes_in);
  pen.put(",\"bytes_out\":");
  pen.number(r.bytes_out);
  put_duration(pen, ",\"duration_ms\":", r.duration_us);
}

void put_json_end(Pen& pen, const AccessRecord& r) {
  if (r.reason != Reason::kNone) {
    pen.put(",\"reason\":\"");
    pen.put(to_string(r.reason));
    pen.put('"');
  }
  if (r.core != AccessRecord::kNoCore) {
    pen.put(",\"core\":");
    pen.number(r.core);
  }
  if (!r.user_agent.empty()) put_string(pen, ",\"user_agent\":\"", r.user_agent);
  if (!r.referer.empty()) put_string(pen, ",\"referer\":\"", r.referer);
  if (r.truncated) pen.put(",\"truncated\":true");
  pen.put("}\n");
}

void put_clf_or_dash(Pen& pen, std::string_view text) {
  if (text.empty()) {
    pen.put('-');
  } else {
    pen.clf_text(text);
  }
}

void put_common(Pen& pen, const AccessRecord& r, std::string_view date) {
  put_client(pen, r);
  pen.put(" - - [");
  pen.put(date);
  pen.put("] \"");
  if (r.method.empty() && r.path.empty()) {
    pen.put('-');  // nothing of the request could be parsed
  } else {
    pen.clf_text(r.method);
    pen.put(' ');
    pen.clf_text(r.path);
    pen.put(' ');
    put_protocol(pen, r);
  }
  pen.put("\" ");
  pen.three_digits(r.status % 1000u);
  pen.put(' ');
  pen.number(r.bytes_out);
}

}  // namespace

void Formatter::update_clock(int64_t time_us) {
  const int64_t second = time_us / kSecondUs;
  if (second == second_) return;
  second_ = second;
  const Date date = date_of(static_cast<uint64_t>(second / kDay));
  const auto in_day = static_cast<uint64_t>(second % kDay);
  const auto put_time = [in_day](Pen& pen) {
    pen.two_digits(in_day / 3600);
    pen.put(':');
    pen.two_digits(in_day / 60 % 60);
    pen.put(':');
    pen.two_digits(in_day % 60);
  };
  Pen iso(iso_.data());
  iso.two_digits(date.year / 100);
  iso.two_digits(date.year % 100);
  iso.put('-');
  iso.two_digits(date.month);
  iso.put('-');
  iso.two_digits(date.day);
  iso.put('T');
  put_time(iso);
  Pen clf(clf_.data());
  clf.two_digits(date.day);
  clf.put('/');
  clf.put(kMonths.substr(3 * (date.month - 1), 3));
  clf.put('/');
  clf.two_digits(date.year / 100);
  clf.two_digits(date.year % 100);
  clf.put(':');
  put_time(clf);
  clf.put(" +0000");
}

void Formatter::append_json(std::string& out, const AccessRecord& record) {
  const int64_t time_us = clamp_time(record.start_us);
  update_clock(time_us);
  append_with(out, string_bytes(record), [&](Pen& pen) {
    pen.put("{\"time\":\"");
    pen.put({iso_.data(), iso_.size()});
    pen.put('.');
    pen.three_digits(static_cast<uint64_t>(time_us / 1000 % 1000));
    put_json_request(pen, record);
    if (!record.upstream.empty() || !record.upstream_address.empty()) {
      put_json_upstream(pen, record);
    }
    if (record.tls_version != 0) put_json_tls(pen, record);
    put_json_end(pen, record);
  });
}

void Formatter::append_common(std::string& out, const AccessRecord& record) {
  update_clock(clamp_time(record.start_us));
  append_with(out, string_bytes(record), [&](Pen& pen) {
    put_common(pen, record, {clf_.data(), clf_.size()});
    pen.put('\n');
  });
}

void Formatter::append_combined(std::string& out, const AccessRecord& record) {
  update_clock(clamp_time(record.start_us));
  append_with(out, string_bytes(record), [&](Pen& pen) {
    put_common(pen, record, {clf_.data(), clf_.size()});
    pen.put(" \"");
    put_clf_or_dash(pen, record.referer);
    pen.put("\" \"");
    put_clf_or_dash(pen, record.user_agent);
    pen.put("\"\n");
  });
}

void Formatter::append_text(std::string& out, const Event& event) {
  const int64_t time_us = clamp_time(event.time_us);
  update_clock(time_us);
  append_with(out, string_bytes(event), [&](Pen& pen) {
    pen.put({iso_.data(), iso_.size()});
    pen.put('.');
    pen.three_digits(static_cast<uint64_t>(time_us / 1000 % 1000));
    pen.put("Z ");
    pen.put(to_string(event.level));
    pen.put(' ');
    pen.text_message(event.component);
    pen.put(' ');
    pen.text_message(event.message);
    for (size_t i = 0; i < event.field_count; ++i) {
      pen.put(' ');
      pen.text_key(event.fields[i].key);
      pen.put('=');
      pen.text_value(event.fields[i].value);
    }
    if (event.core != Event::kNoCore) {
      pen.put(" core=");
      pen.number(event.core);
    }
    if (event.truncated) pen.put(" truncated=true");
    pen.put('\n');
  });
}

void Formatter::append_json(std::string& out, const Event& event) {
  const int64_t time_us = clamp_time(event.time_us);
  update_clock(time_us);
  append_with(out, string_bytes(event), [&](Pen& pen) {
    pen.put("{\"time\":\"");
    pen.put({iso_.data(), iso_.size()});
    pen.put('.');
    pen.three_digits(static_cast<uint64_t>(time_us / 1000 % 1000));
    pen.put("Z\",\"level\":\"");
    pen.put(to_string(event.level));
    put_string(pen, "\",\"component\":\"", event.component);
    put_string(pen, ",\"message\":\"", event.message);
    for (size_t i = 0; i < event.field_count; ++i) {
      const EventField& field = event.fields[i];
      pen.put(",\"");
      pen.text_key(field.key);
      pen.put("\":");
      if (field.bare) {
        pen.put(field.value);
      } else {
        put_string(pen, "\"", field.value);
      }
    }
    if (event.core != Event::kNoCore) {
      pen.put(",\"core\":");
      pen.number(event.core);
    }
    if (event.truncated) pen.put(",\"truncated\":true");
    pen.put("}\n");
  });
}

void Formatter::append(std::string& out, const AccessRecord& record, AccessFormat format) {
  switch (format) {
    case AccessFormat::kJson: append_json(out, record); return;
    case AccessFormat::kCommon: append_common(out, record); return;
    case AccessFormat::kCombined: append_combined(out, record); return;
  }
}

void Formatter::append(std::string& out, const Event& event, ErrorFormat format) {
  switch (format) {
    case ErrorFormat::kText: append_text(out, event); return;
    case ErrorFormat::kJson: append_json(out, event); return;
  }
}

}  // namespace weir::log
