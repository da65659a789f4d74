#include <weir/files/listing.h>

#include <algorithm>
#include <compare>

#include <weir/base/text.h>

#include "field_list.h"

namespace weir::files {

namespace {

std::strong_ordering compare_names(std::string_view a, std::string_view b) noexcept {
  const size_t common = std::min(a.size(), b.size());
  for (size_t i = 0; i < common; ++i) {
    const auto order =
        static_cast<uint8_t>(base::to_lower(a[i])) <=> static_cast<uint8_t>(base::to_lower(b[i]));
    if (order != 0) return order;
  }
  const auto order = a.size() <=> b.size();
  return order != 0 ? order : a.compare(b) <=> 0;
}

std::strong_ordering compare_keys(const ListingEntry& a, const ListingEntry& b,
                                  ListingSort key) noexcept {
  switch (key) {
    case ListingSort::kName: return compare_names(a.name, b.name);
    case ListingSort::kSize:
      // A directory's size says nothing about what is in it.
      return a.is_directory ? std::strong_ordering::equal : a.size <=> b.size;
    case ListingSort::kModified: return a.modified <=> b.modified;
  }
  return std::strong_ordering::equal;
}

// The weight that Accept gives a type: of the most exact range that fits it, 0 when none does.
class AcceptedWeight {
 public:
  AcceptedWeight(std::string_view whole, std::string_view type) noexcept
      : whole_(whole), type_(type) {}

  void look_at(const WeightedElement& range) noexcept {
    unsigned exactness = 0;
    if (base::equals_ignore_case(range.name, whole_)) {
      exactness = 3;
    } else if (base::equals_ignore_case(range.name, type_)) {
      exactness = 2;
    } else if (range.name == "*/*") {
      exactness = 1;
    }
    if (exactness <= exactness_ || !range.weight) return;
    exactness_ = exactness;
    weight_ = *range.weight;
  }
  [[nodiscard]] uint16_t weight() const noexcept { return weight_; }

 private:
  std::string_view whole_;  // "text/html"
  std::string_view type_;   // "text/*"
  unsigned exactness_ = 0;
  uint16_t weight_ = 0;
};

}  // namespace

ListingOptions parse_listing_query(std::string_view query) noexcept {
  ListingOptions options;
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (pair == "format=json") options.format = ListingFormat::kJson;
    if (pair == "format=html") options.format = ListingFormat::kHtml;
    if (pair == "sort=name") options.sort = ListingSort::kName;
    if (pair == "sort=size") options.sort = ListingSort::kSize;
    if (pair == "sort=time") options.sort = ListingSort::kModified;
    if (pair == "order=asc") options.descending = false;
    if (pair == "order=desc") options.descending = true;
  }
  return options;
}

ListingFormat choose_listing_format(const ListingOptions& options,
                                    const http::FieldTable& fields) noexcept {
  if (options.format) return *options.format;
  AcceptedWeight html("text/html", "text/*");
  AcceptedWeight json("application/json", "application/*");
  FieldElements elements(fields, http::KnownField::kAccept);
  for (std::string_view element; elements.next(element);) {
    const WeightedElement range = parse_weighted(element);
    html.look_at(range);
    json.look_at(range);
  }
  return json.weight() > html.weight() ? ListingFormat::kJson : ListingFormat::kHtml;
}

void sort_listing(std::span<ListingEntry> entries, const ListingOptions& options) noexcept {
  std::sort(entries.begin(), entries.end(),
            [&options](const ListingEntry& a, const ListingEntry& b) {
              if (a.is_directory != b.is_directory) return a.is_directory;
              const auto order = compare_keys(a, b, options.sort);
              if (order != 0) return options.descending ? order > 0 : order < 0;
              return compare_names(a.name, b.name) < 0;
            });
}

}  // namespace weir::files
