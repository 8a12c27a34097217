// JSON of files that need not be trusted, and how they are refused.
#pragma once

#include <stdint.h>

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace cobra {

// in the order in which it was written
using Json = nlohmann::ordered_json;

// What is wrong, in words for a user.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void check(bool is_so, const std::string& wrong) {
  if (!is_so) throw Refused(wrong);
}

inline int64_t whole(const Json& said, int64_t least, int64_t most) {
  check(said.is_number_integer(), "a setting is no whole number");
  const int64_t value = said.get<int64_t>();
  check(least <= value && value <= most, "a setting is " + std::to_string(value));
  return value;
}

}  // namespace cobra
