#include "mnemosyne/meta/contender.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string_view>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"

namespace mnemosyne::meta {
namespace {

constexpr std::array<std::string_view, 5> kTunable{"sgd", "adam", "adamw", "adafactor", "muon"};

double parse_rate(std::string_view text, const std::string& contender) {
  double rate = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rate);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(rate) ||
      rate <= 0) {
    throw InputError("[optimizers] expected a positive learning rate behind @ in " +
                     io::in_quotes(contender) + ", got " + io::in_quotes(text));
  }
  return rate;
}

// Where the next suffix begins. A plus or minus sign of an exponent ("1e-3", "1e+3") begins none.
size_t next_suffix(std::string_view text, size_t from) {
  for (size_t i = from; i < text.size(); ++i) {
    const bool exponent =
        i > 0 && (text[i - 1] == 'e' || text[i - 1] == 'E') && i + 1 < text.size();
    if (text[i] == '@' || text[i] == ':' || (text[i] == '+' && !exponent)) return i;
  }
  return text.size();
}

void apply_suffix(std::string_view suffix, const std::string& text, Contender& contender,
                  bool& fixed) {
  if (suffix == ":cosine") {
    contender.schedule = Schedule::kCosine;
  } else if (suffix == ":num_steps") {
    contender.give_num_steps = true;
  } else if (suffix == "+") {
    contender.tuned = true;
  } else if (suffix.front() == '@') {
    contender.lr = parse_rate(suffix.substr(1), text);
    fixed = true;
  } else {
    throw InputError("[optimizers] expected @RATE, :cosine, :num_steps or + behind the name in " +
                     io::in_quotes(text) + ", got " + io::in_quotes(suffix));
  }
}

std::shared_ptr<const optim::UpdateRule> find_rule(const std::string& name) {
  if (name.ends_with(".safetensors")) return optim::load_rule(name);
  const std::vector<std::string> trained = optim::default_rule_names();
  if (std::find(trained.begin(), trained.end(), name) != trained.end()) {
    return optim::default_rule(name);
  }
  const std::shared_ptr<const optim::UpdateRule> rule = optim::make_rule(name);
  return rule->weights().empty() ? rule : optim::default_rule(name);
}

}  // namespace

Member Contender::member(int64_t num_steps) const { return member(num_steps, lr, schedule); }

Member Contender::member(int64_t num_steps, double other_lr, Schedule other_schedule) const {
  Member result{rule, {.lr = other_lr}, other_schedule};
  if (give_num_steps) result.options.num_steps = num_steps;
  return result;
}

Contender parse_contender(const std::string& text, bool tune) {
  // In "LABEL=NAME" the suffixes stand behind the name and belong to the label, too.
  const size_t equals = text.find('=');
  const size_t name_at = equals == std::string::npos ? 0 : equals + 1;
  const size_t name_end = next_suffix(text, name_at);
  const std::string name = text.substr(name_at, name_end - name_at);
  const std::string label = equals == std::string::npos ? name : text.substr(0, equals);
  if (name.empty() || label.empty()) {
    throw InputError("[optimizers] expected the name of an optimizer, got " + io::in_quotes(text));
  }

  Contender contender{.label = label + text.substr(name_end), .rule = find_rule(name)};
  contender.lr = contender.rule->default_lr();
  bool fixed = false;
  for (size_t at = name_end; at < text.size();) {
    const size_t end = next_suffix(text, at + 1);
    apply_suffix(std::string_view(text).substr(at, end - at), text, contender, fixed);
    at = end;
  }
  if (fixed && contender.tuned) {
    throw InputError("[optimizers] expected either @RATE or + in " + io::in_quotes(text) +
                     ", got both");
  }
  const bool tunable = std::find(kTunable.begin(), kTunable.end(), name) != kTunable.end();
  contender.tuned = contender.tuned || (tune && tunable && !fixed);
  return contender;
}

const char* schedule_name(Schedule schedule) {
  return schedule == Schedule::kCosine ? "cosine" : "constant";
}

}  // namespace mnemosyne::meta
