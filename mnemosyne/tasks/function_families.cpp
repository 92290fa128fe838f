#include <utility>
#include <vector>

#include "mnemosyne/tasks/family_draws.h"
#include "mnemosyne/tasks/quadratic.h"
#include "mnemosyne/tasks/teacher.h"

namespace mnemosyne::tasks {

TaskPtr sample_quadratic(std::string name, Random& random) {
  return make_quadratic(std::move(name),
                        {.rows = random.between(4, 24),
                         .columns = random.between(4, 24),
                         .condition = random.log_uniform(10, 1e5),
                         .noise = random.chance(0.3) ? 0.0 : random.log_uniform(0.01, 1.0),
                         .seed = random.bits()});
}

/// Smooth random functions of normal inputs, fresh ones in every step, mostly with noise: nothing
/// to interpolate, and networks far wider than their task asks for.
TaskPtr sample_function(std::string name, Random& random) {
  const int64_t in = random.between(4, 48), out = random.between(1, 12);
  const bool classify = out > 1 && random.chance(0.4);
  TeacherOptions options{.teacher = {.sizes = {in, random.choose({32, 64, 128}), out},
                                     .activation = Activation::kSine},
                         .student = {.activation = draw_activation(random)},
                         .classify = classify,
                         .target_noise = random.chance(0.7) ? random.uniform(0.05, 1.0) : 0.0,
                         .batch_size = random.choose({16, 32, 64, 128}),
                         .seed = mix_seeds(random.bits(), 0x66756e)};
  const auto width = static_cast<int64_t>(random.log_uniform(16, 193));
  options.student.sizes = layer_sizes(in, random.between(1, 5), width, out);
  return make_teacher(std::move(name), options);
}

/// The same functions, but of a table that is seen again and again: networks that can learn its
/// noise by heart, and with it become worse on what they have not seen.
TaskPtr sample_table(std::string name, Random& random) {
  const int64_t in = random.between(4, 48), out = random.between(1, 10);
  TeacherOptions options{
      .teacher = {.sizes = {in, random.choose({16, 32, 64}), out}, .activation = Activation::kTanh},
      .student = {.activation = draw_activation(random),
                  .norm = draw_norm(random),
                  .residual = random.chance(0.3)},
      .classify = out > 1 && random.chance(0.5),
      .target_noise = random.uniform(0.0, 0.7),
      .batch_size = random.choose({16, 32, 64}),
      .table_size = static_cast<int64_t>(random.log_uniform(100, 4000)),
      .seed = mix_seeds(random.bits(), 0x746162)};
  const auto width = static_cast<int64_t>(random.log_uniform(16, 193));
  options.student.sizes = layer_sizes(in, random.between(1, 4), width, out);
  return make_teacher(std::move(name), options);
}

TaskPtr sample_teacher(std::string name, Random& random) {
  const int64_t in = random.between(4, 32), out = random.between(2, 10);
  TeacherOptions options{
      .teacher = {.sizes = {in, random.between(8, 64), out}, .activation = Activation::kTanh},
      .student = {.activation = draw_activation(random)},
      .classify = random.chance(0.5),
      .target_noise = random.chance(0.5) ? random.uniform(0.05, 0.5) : 0.0,
      .batch_size = random.choose({16, 32, 64}),
      .seed = random.bits()};
  const int64_t width = random.choose({16, 64, 256});
  options.student.sizes = layer_sizes(in, random.between(1, 3), width, out);
  return make_teacher(std::move(name), options);
}

}  // namespace mnemosyne::tasks
