#include "question.h"

#include <algorithm>

#include "json.h"

namespace cobra {
namespace {

// as in cobra/data/token_ids.py
constexpr const char* kImage = "<image>";

// The character of UTF-8 that begins at a place, which moves behind it.
char32_t character(const std::string& text, size_t& place) {
  constexpr const char* kWrong = "a question is no text in UTF-8: write it in that encoding";
  constexpr char32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  const unsigned char lead = static_cast<unsigned char>(text[place++]);
  check(lead < 0x80 || (lead >= 0xC0 && lead < 0xF8), kWrong);
  const size_t more = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  check(more <= text.size() - place, kWrong);
  char32_t code = more ? lead & (0x3F >> more) : lead;
  for (const size_t end = place + more; place < end; ++place) {
    const unsigned char byte = static_cast<unsigned char>(text[place]);
    check((byte & 0xC0) == 0x80, kWrong);
    code = code << 6 | (byte & 0x3F);
  }
  // longer than it need be, half of a pair, beyond the last
  check(code >= kLeast[more] && (code < 0xD800 || code > 0xDFFF) && code <= 0x10FFFF, kWrong);
  return code;
}

// As Python's str.isspace says.
bool is_space(char32_t code) {
  constexpr char32_t kRanges[][2] = {{0x09, 0x0D},     {0x1C, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                     {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                     {0x205F, 0x205F}, {0x3000, 0x3000}};
  return std::any_of(std::begin(kRanges), std::end(kRanges),
                     [&](const auto& range) { return range[0] <= code && code <= range[1]; });
}

}  // namespace

std::string question_of(const std::string& prompt) {
  size_t start = prompt.size(), end = 0;
  for (size_t place = 0; place < prompt.size();) {
    const size_t begin = place;
    if (is_space(character(prompt, place))) continue;
    start = std::min(start, begin);
    end = place;
  }
  check(end > 0, "a question is empty: ask something");
  check(prompt.find(kImage) == std::string::npos,
        std::string("a question places a picture: remove '") + kImage + "' from it");
  return prompt.substr(start, end - start);
}

}  // namespace cobra
