#include "export_folder.h"

#include <fstream>
#include <sstream>

namespace cobra {
namespace {

// as in cobra/export/manifest.py
constexpr int kFormat = 2;
constexpr std::streamoff kMostBytes = 1 << 26;
constexpr size_t kMostPieces = 4096;
constexpr int kMostTokens = 1 << 24;

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  check(bool(file), "it is missing: expected a folder that `cobra export` wrote");
  check(file.tellg() <= kMostBytes, "it is too large for a manifest");
  std::ostringstream text;
  text << file.seekg(0).rdbuf();
  return text.str();
}

Turn turn_of(const Json& said) {
  check(said.is_array() && said.size() <= kMostPieces, "a turn is no list of pieces");
  Turn turn;
  for (const Json& piece : said) {
    if (piece.is_null())
      turn.push_back({Piece::Kind::kPicture, 0, {}});
    else if (piece.is_array())
      turn.push_back({Piece::Kind::kText, 0, piece.get<std::vector<std::string>>()});
    else
      turn.push_back({Piece::Kind::kToken, int(whole(piece, 0, kMostTokens)), {}});
  }
  return turn;
}

// What a manifest says is missing and begins so; "" where it is not.
std::string missing(const Json& contents, const std::string& beginning) {
  for (const Json& said : contents.at("missing")) {
    const std::string& text = said.get_ref<const std::string&>();
    if (text.compare(0, beginning.size(), beginning) == 0) return text;
  }
  return "";
}

Export parsed(const std::string& folder, const Json& manifest) {
  Export found;
  found.folder = folder;
  found.is_exact = manifest.at("quant").get<std::string>() == "f32";
  const Json &contents = manifest.at("contents"), &settings = contents.at("settings");
  if (!settings.contains("turns")) {
    std::string why = missing(contents, "turns for cobra-run");
    if (why.empty()) why = missing(contents, "a tokenizer");
    throw Refused("it has no turns that can be written without Python; its manifest says: " + why);
  }
  found.eos_id = int(whole(settings.at("eos_id"), 0, kMostTokens));
  const Json& turns = settings.at("turns");
  found.first = turn_of(turns.at("first"));
  found.picture = turn_of(turns.at("picture"));
  found.later = turn_of(turns.at("later"));
  if (settings.contains("pixels"))
    for (const Json& said : settings.at("pixels")) found.planes.emplace_back(said);
  else
    found.blind = missing(contents, "the way of pictures");
  return found;
}

}  // namespace

Export read_export(const std::string& folder) {
  const std::string path = folder + "/manifest.json";
  try {
    const Json manifest = Json::parse(text_of(path));
    const int64_t format = manifest.at("format").get<int64_t>();
    check(format == kFormat, "it has format " + std::to_string(format) + ", this program reads " +
                                 std::to_string(kFormat) + ": export the model again");
    const std::string target = manifest.at("target").get<std::string>();
    check(target == "gguf", "it is of target " + target + ", this program runs gguf");
    return parsed(folder, manifest);
  } catch (const Refused& error) {
    throw Refused(path + ": " + error.what());
  } catch (const std::exception& error) {
    throw Refused(path + " is no manifest of an export (" + error.what() + "): export the model again");
  }
}

}  // namespace cobra
