// What manifest.json of an export folder says to a program that runs it (cobra/export/manifest.py, turns.py,
// pixels.py).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pixels.h"

namespace cobra {

// Of a turn: a token, a picture, or a text with the question between each two of its parts.
struct Piece {
  enum class Kind { kToken, kPicture, kText } kind;
  int token = 0;
  std::vector<std::string> parts;
};
using Turn = std::vector<Piece>;

struct Export {
  std::string folder;
  // of a build that keeps a transformer's keys and values in fp32
  bool is_exact = false;
  int eos_id = 0;
  Turn first, picture, later;
  // none where it reads no pictures, and why
  std::vector<Plane> planes;
  std::string blind;

  std::string file(const char* name) const { return folder + "/" + name; }
};

// Refused where it is no folder of `cobra export --target gguf`, or of another version.
Export read_export(const std::string& folder);

}  // namespace cobra
