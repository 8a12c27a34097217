// A question as Python treats one (cobra/data/turn_ids.py).
#pragma once

#include <string>

namespace cobra {

// Without spaces of Unicode around it; refused where it is empty, is no UTF-8 or places a picture.
std::string question_of(const std::string& prompt);

}  // namespace cobra
