#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace mnemosyne::tasks {

/// How a parameter starts.
struct Init {
  enum class Kind {
    kConstant,  ///< Every entry is `scale`.
    kNormal,    ///< Normal with standard deviation `scale`.
    kUniform,   ///< Uniform in [-scale, scale).
  };
  Kind kind = Kind::kConstant;
  double scale = 0.0;
};

/// The parameters that a network declares: names, shapes and starting values, in the order in which
/// its forward pass takes them. Layers start as torch's do.
///
///     ParamList params;
///     params.linear("head", 64, 10);   // "head.weight" [10,64], "head.bias" [10]
class ParamList {
 public:
  void add(std::string name, std::vector<int64_t> shape, Init init);

  /// weight [out,in] and bias [out], uniform within 1 / sqrt(in).
  void linear(const std::string& name, int64_t in, int64_t out);

  /// weight [out,in,kernel,kernel] and bias [out], uniform within 1 / sqrt(in * kernel^2).
  void conv2d(const std::string& name, int64_t in, int64_t out, int64_t kernel);

  /// weight [out,in,kernel,kernel] alone.
  void conv2d_weight(const std::string& name, int64_t in, int64_t out, int64_t kernel);

  /// weight [features] of ones and bias [features] of zeros, of a layer or batch norm.
  void norm(const std::string& name, int64_t features);

  /// weight [count,features], normal with standard deviation `scale`.
  void embedding(const std::string& name, int64_t count, int64_t features, double scale);

  std::vector<std::string> names() const;

  /// Number of values of all parameters together.
  int64_t numel() const;

  /// Fresh float32 tensors, a function of the seed.
  std::vector<at::Tensor> init(uint64_t seed) const;

 private:
  struct Entry {
    std::string name;
    std::vector<int64_t> shape;
    Init init;
  };
  std::vector<Entry> entries_;
};

/// A weight with its bias, stacked: [P,out,...] and [P,out].
struct Affine {
  at::Tensor weight;
  at::Tensor bias;
};

/// Hands the parameters out in the order of their list, as a forward pass consumes them.
class ParamCursor {
 public:
  explicit ParamCursor(at::TensorList params) : params_(params) {}

  const at::Tensor& next();
  Affine affine() { return {next(), next()}; }

 private:
  at::TensorList params_;
  size_t position_ = 0;
};

}  // namespace mnemosyne::tasks
