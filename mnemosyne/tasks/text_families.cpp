#include <utility>

#include "mnemosyne/tasks/data/text_data.h"
#include "mnemosyne/tasks/family_draws.h"
#include "mnemosyne/tasks/language_task.h"
#include "mnemosyne/tasks/stacked/gru_lm.h"
#include "mnemosyne/tasks/stacked/transformer_lm.h"

namespace mnemosyne::tasks {

TaskPtr sample_lm(std::string name, Random& random) {
  const int64_t context = random.choose({16, 24, 32});
  const SyntheticTextOptions text{.alphabet = random.between(16, 40), .length = 50'000};
  const TransformerLmOptions options{.vocabulary = text.alphabet,
                                     .context = context,
                                     .transformer = {.width = random.choose({8, 16, 32, 48}),
                                                     .heads = random.choose({1, 2, 4}),
                                                     .layers = random.between(1, 2),
                                                     .causal = true,
                                                     .joint_projection = random.chance(0.3)}};
  const int64_t batch_size = random.choose({64, 128}) / context;
  return make_language_task(std::move(name), make_transformer_lm(options),
                            std::make_shared<const TextData>(synthetic_text(random.bits(), text)),
                            {.context = context, .batch_size = batch_size});
}

/// A head that is the token embedding, and more characters than most languages have.
TaskPtr sample_tied_lm(std::string name, Random& random) {
  const int64_t context = random.choose({16, 32});
  const SyntheticTextOptions text{.alphabet = random.between(24, 200),
                                  .length = 50'000,
                                  .words = random.choose({100, 300, 1000})};
  const TransformerLmOptions options{.vocabulary = text.alphabet,
                                     .context = context,
                                     .transformer = {.width = random.choose({16, 32, 64}),
                                                     .heads = random.choose({1, 2, 4}),
                                                     .layers = random.between(1, 3),
                                                     .causal = true,
                                                     .joint_projection = random.chance(0.3)},
                                     .tied = true};
  const uint64_t seed = mix_seeds(random.bits(), 0x746965);
  return make_language_task(std::move(name), make_transformer_lm(options),
                            std::make_shared<const TextData>(synthetic_text(seed, text)),
                            {.context = context, .batch_size = random.choose({64, 128}) / context});
}

TaskPtr sample_rnn_lm(std::string name, Random& random) {
  const SyntheticTextOptions text{
      .alphabet = random.between(12, 48), .length = 50'000, .words = 150};
  const GruLmOptions options{.vocabulary = text.alphabet,
                             .embedding = random.choose({8, 16}),
                             .hidden = random.choose({16, 48, 96})};
  // Its own seeds: no language of the lm family appears here.
  const uint64_t seed = mix_seeds(random.bits(), 0x726e6e);
  return make_language_task(std::move(name), make_gru_lm(options),
                            std::make_shared<const TextData>(synthetic_text(seed, text)),
                            {.context = random.choose({12, 20}), .batch_size = 8});
}

}  // namespace mnemosyne::tasks
