#include "mnemosyne/tasks/teacher.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>

#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/data/row_data.h"
#include "mnemosyne/tasks/model_task.h"

namespace mnemosyne::tasks {
namespace {

constexpr double kTeacherGain = 3.0;  // enough for the teacher's units to be well in their bends
constexpr int64_t kCalibration = 2048, kValidation = 256;
constexpr int64_t kCalibrationStep = -1, kValidationStep = -2, kTableStep = -3;

/// The teacher with its weights, and the statistics of its outputs [C].
struct Teacher {
  std::shared_ptr<const Model> model;
  std::vector<at::Tensor> params;  // stacked, P = 1
  at::Tensor mean;
  at::Tensor deviation;

  at::Tensor outputs(const at::Tensor& inputs) const {
    return model->forward(params, inputs).select(0, 0);
  }
};

class TeacherData {
 public:
  explicit TeacherData(const TeacherOptions& options) : options_(options) {
    const at::NoGradGuard no_grad;
    teacher_.model = make_mlp(options.teacher);
    for (at::Tensor& param : teacher_.model->init(options.seed)) {
      teacher_.params.push_back(param.mul_(kTeacherGain).unsqueeze(0));
    }
    const at::Tensor outputs =
        teacher_.outputs(inputs(kCalibration, options.seed, kCalibrationStep));
    teacher_.mean = outputs.mean(0);
    teacher_.deviation = outputs.std(0).clamp_min(1e-3);
  }

  /// {inputs [B,in], targets: [B,out] or labels [B]}.
  Batch batch(int64_t size, uint64_t seed, int64_t step, double noise) const {
    const at::NoGradGuard no_grad;
    const at::Tensor x = inputs(size, seed, step);
    at::Tensor y = teacher_.outputs(x).sub(teacher_.mean).div(teacher_.deviation);
    if (options_.classify) return {x, y.argmax(-1)};
    if (noise > 0.0) {
      const at::Generator generator = tensor_generator(mix_seeds(seed + 1, step));
      y = y.add(at::randn(y.sizes(), generator, at::kFloat), noise);
    }
    return {x, y};
  }

 private:
  at::Tensor inputs(int64_t size, uint64_t seed, int64_t step) const {
    return at::randn({size, options_.teacher.sizes.front()},
                     tensor_generator(mix_seeds(seed, step)), at::kFloat);
  }

  TeacherOptions options_;
  Teacher teacher_;
};

class TeacherStream : public BatchStream {
 public:
  TeacherStream(std::shared_ptr<const TeacherData> data, const TeacherOptions& options,
                uint64_t seed)
      : data_(std::move(data)),
        batch_size_(options.batch_size),
        noise_(options.target_noise),
        seed_(mix_seeds(options.seed, seed)) {}

  Batch at(int64_t step) override { return data_->batch(batch_size_, seed_, step, noise_); }

 private:
  std::shared_ptr<const TeacherData> data_;
  int64_t batch_size_;
  double noise_;
  uint64_t seed_;
};

class TeacherTask : public ModelTask {
 public:
  TeacherTask(std::string name, const TeacherOptions& options)
      : ModelTask(std::move(name), make_mlp(options.student)),
        options_(options),
        data_(std::make_shared<const TeacherData>(options)) {}

  std::unique_ptr<BatchStream> train_stream(uint64_t seed) const override {
    if (options_.table_size > 0) {
      const Batch table =
          data_->batch(options_.table_size, options_.seed, kTableStep, options_.target_noise);
      return row_stream({table[0], table[1]}, options_.batch_size, mix_seeds(options_.seed, seed));
    }
    return std::make_unique<TeacherStream>(data_, options_, seed);
  }

  std::vector<Batch> validation_batches() const override {
    return {data_->batch(kValidation, options_.seed, kValidationStep, 0.0)};
  }

  at::Tensor loss(at::TensorList params, const Batch& batch) const override {
    const at::Tensor outputs = model().forward(params, batch[0]);
    return options_.classify ? stacked_cross_entropy(outputs, batch[1])
                             : stacked_squared_error(outputs, batch[1]);
  }

  at::Tensor accuracy(at::TensorList params, const Batch& batch) const override {
    if (!options_.classify) return {};
    return stacked_accuracy(model().forward(params, batch[0]), batch[1]);
  }

 private:
  TeacherOptions options_;
  std::shared_ptr<const TeacherData> data_;
};

}  // namespace

std::shared_ptr<const Task> make_teacher(std::string name, const TeacherOptions& options) {
  const std::vector<int64_t>&student = options.student.sizes, &teacher = options.teacher.sizes;
  if (student.size() < 2 || teacher.size() < 2 || student.front() != teacher.front() ||
      student.back() != teacher.back()) {
    throw InputError(
        "[teacher] expected a student with the teacher's inputs and outputs, got others");
  }
  return std::make_shared<TeacherTask>(std::move(name), options);
}

}  // namespace mnemosyne::tasks
