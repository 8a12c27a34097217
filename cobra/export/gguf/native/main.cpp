// cobra-run: asks an export folder about a picture, without Python, and says how long it took.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <thread>

#include "conversation.h"
#include "pictures.h"
#include "question.h"

namespace cobra {
namespace {

constexpr const char* kUsage =
    "usage: cobra-run DIR --prompt TEXT [TEXT ...] [--image FILE] [--max-new-tokens N] [--threads N]\n"
    "  DIR       what `cobra export MODEL --target gguf` wrote\n"
    "  --prompt  the question; more are further turns\n"
    "  --image   a picture (JPEG, PNG, BMP), shown with the first\n"
    "  --help    prints this\n";

// 1 where the system does not say
int cores() { return std::clamp(int(std::thread::hardware_concurrency()), 1, GGML_MAX_N_THREADS); }

struct Arguments {
  std::string folder, image;
  std::vector<std::string> prompts;
  bool wants_help = false;
  int most_new_tokens = 256;
  // more only wait for each other where cores are slow, or busy
  int threads = std::min(cores(), 4);
};

// Refused, with the usage, where they are not understood.
struct Misused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int positive(const std::string& name, const std::string& text, int most) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end || value < 1 || value > most)
    throw Misused(name + " " + text + " is no whole number from 1 to " + std::to_string(most));
  return int(value);
}

Arguments parsed(const std::vector<std::string>& words) {
  Arguments found;
  for (size_t place = 0; place < words.size(); ++place) {
    const std::string& word = words[place];
    if (word == "--help" || word == "-h") {
      found.wants_help = true;
      return found;
    }
    if (word.compare(0, 2, "--") != 0) {
      if (!found.folder.empty()) throw Misused(word + " is one argument too many");
      found.folder = word;
      continue;
    }
    if (place + 1 == words.size()) throw Misused(word + " needs a value");
    const std::string& value = words[++place];
    if (value.compare(0, 2, "--") == 0) throw Misused(word + " needs a value, and " + value + " is an option");
    if (word == "--image") {
      if (value.empty()) throw Misused("--image names no file");
      if (!found.image.empty()) throw Misused("--image is one picture");
      found.image = value;
    } else if (word == "--max-new-tokens") {
      found.most_new_tokens = positive(word, value, 1000000);
    } else if (word == "--threads") {
      found.threads = positive(word, value, cores());
    } else if (word == "--prompt") {
      found.prompts.push_back(value);
      while (place + 1 < words.size() && words[place + 1].compare(0, 2, "--") != 0)
        found.prompts.push_back(words[++place]);
    } else {
      throw Misused(word + " is no option");
    }
  }
  if (found.folder.empty() || found.prompts.empty()) throw Misused("DIR and --prompt are needed");
  return found;
}

// The picture's tokens; encoder and projector are out of memory then.
Picture seen(const Export& said, const Arguments& arguments, double& seconds_spent) {
  const std::string path = said.file("pictures.gguf");
  const std::string why = said.blind.empty() ? "nothing of pixels" : said.blind;
  check(!said.planes.empty(), said.folder + " reads no pictures; its manifest says: " + why);
  const std::unique_ptr<cobra_pictures, void (*)(cobra_pictures*)> program(
      cobra_pictures_open(path.c_str(), arguments.threads), cobra_pictures_close);
  check(program != nullptr, cobra_pictures_error());
  const double start = seconds();
  const Image image = read_picture(arguments.image);
  check(size_t(cobra_pictures_planes(program.get())) == said.planes.size(), path + " is of another model");
  std::vector<std::vector<float>> values;
  std::vector<const float*> planes;
  for (size_t plane = 0; plane < said.planes.size(); ++plane) {
    int64_t shape[4];
    cobra_pictures_pixel_shape(program.get(), int32_t(plane), shape);
    const int side = said.planes[plane].side;
    check(shape[2] == side && shape[3] == side, path + " is of another model");
    values.push_back(said.planes[plane].normalized(said.planes[plane].square(image)));
    planes.push_back(values.back().data());
  }
  int64_t shape[2];
  cobra_pictures_token_shape(program.get(), shape);
  Picture picture{shape[0], shape[1], std::vector<float>(size_t(shape[0] * shape[1]))};
  const int32_t failed = cobra_pictures_run(program.get(), planes.data(), picture.values.data());
  // which is told only then
  check(failed == 0, cobra_pictures_error());
  seconds_spent = seconds() - start;
  return picture;
}

// Without characters that would command a terminal; a pipe or a file gets it as it is.
std::string harmless(const std::string& text) {
  if (!isatty(STDOUT_FILENO)) return text;
  std::string shown;
  for (size_t place = 0; place < text.size(); ++place) {
    const unsigned char byte = static_cast<unsigned char>(text[place]);
    const unsigned char next = place + 1 < text.size() ? static_cast<unsigned char>(text[place + 1]) : 0;
    // U+0080 to U+009F are two bytes
    const bool is_long = byte == 0xC2 && next >= 0x80 && next < 0xA0;
    const bool commands = (byte < 0x20 && byte != '\t' && byte != '\n') || byte == 0x7F || is_long;
    shown += commands ? "\xEF\xBF\xBD" : std::string(1, text[place]);
    place += is_long;
  }
  return shown;
}

// Megabytes that this process has held at most.
double peak_memory() {
  // Linux's ru_maxrss counts what started this process, too
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.compare(0, 6, "VmHWM:") == 0) return std::strtod(line.c_str() + 6, nullptr) * 1024 / 1e6;
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  return double(usage.ru_maxrss) / 1e6;
#else
  return double(usage.ru_maxrss) * 1024 / 1e6;
#endif
}

void print(const Spent& spent) {
  const auto rate = [](int64_t tokens, double seconds) { return double(tokens) / std::max(seconds, 1e-9); };
  std::fprintf(stderr, "T_VE %.3f s, S_prompt %.1f tokens/s, S_gen %.1f tokens/s, T_total %.3f s, peak RSS %.0f MB\n",
               spent.seeing, rate(spent.read, spent.reading), rate(spent.written, spent.writing),
               spent.seeing + spent.reading + spent.writing, peak_memory());
}

void say_errors(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

void run(const Arguments& arguments) {
  llama_log_set(say_errors, nullptr);
  const Export said = read_export(arguments.folder);
  std::vector<std::string> questions;
  for (const std::string& prompt : arguments.prompts) questions.push_back(question_of(prompt));
  double seeing = 0;
  Picture picture;
  if (!arguments.image.empty()) picture = seen(said, arguments, seeing);
  Conversation conversation(said, arguments.threads, arguments.most_new_tokens);
  for (size_t number = 0; number < questions.size(); ++number) {
    const bool sees = number == 0 && !arguments.image.empty();
    conversation.ask(questions[number], sees ? &picture : nullptr, [](const std::string& text) {
      std::fputs(harmless(text).c_str(), stdout);
      std::fflush(stdout);
    });
    std::puts("");
    // before the times, where both go to one file
    std::fflush(stdout);
    check(!std::ferror(stdout), "the answer cannot be written: is the disk full?");
  }
  Spent spent = conversation.spent();
  spent.seeing = seeing;
  print(spent);
}

}  // namespace
}  // namespace cobra

int main(int count, char** words) {
  try {
    const cobra::Arguments arguments = cobra::parsed({words + 1, words + count});
    if (arguments.wants_help)
      std::fputs(cobra::kUsage, stdout);
    else
      cobra::run(arguments);
    return 0;
  } catch (const cobra::Misused& error) {
    std::fprintf(stderr, "cobra-run: %s\n%s", error.what(), cobra::kUsage);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cobra-run: %s\n", error.what());
    return 1;
  }
}
