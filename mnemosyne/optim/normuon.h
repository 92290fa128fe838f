#pragma once

#include "mnemosyne/optim/muon.h"

namespace mnemosyne::optim {

/// The authors' setting.
struct NorMuonOptions {
  double momentum = 0.95;        ///< In [0, 1); Nesterov's.
  double row_decay = 0.95;       ///< Of the mean square of every row of the direction, in [0, 1).
  int64_t num_iterations = 5;    ///< Newton-Schulz steps, 1 to 99.
  double adam_lr_ratio = 0.015;  ///< Learning rate of the tensors that Adam updates, over `lr`.
  double adam_beta1 = 0.9;       ///< In [0, 1).
  double adam_beta2 = 0.95;      ///< In [0, 1).
};

/// Muon whose rows (neurons) move by steps of like sizes over time. With O [rows, columns] what
/// Muon orthogonalises,
///
///     v_t = row_decay v_{t-1} + (1 - row_decay) mean over columns of O^2        v_0 = 0
///     N   = O / sqrt(v_t),   p <- p - lr sqrt(max(1, rows / columns)) N |O| / |N|
///
/// Vectors are Adam's. State: that of Muon, with v as the second moment of a matrix (a number a
/// row).
///
///     auto rule = optim::make_rule("normuon");       // lr .02
///
/// Li et al., "NorMuon: making Muon more efficient and scalable", arXiv 2510.05491, and the
/// authors' code. Throws InputError for options out of range.
class NorMuon : public Muon {
 public:
  explicit NorMuon(const NorMuonOptions& options = {});

  std::string name() const override { return "normuon"; }
  std::string options_json() const override;
  StateLayout state_layout(const at::Tensor& param) const override;
  std::shared_ptr<const UpdateRule> elementwise() const override;
  double default_lr() const override { return 0.02; }

 protected:
  at::Tensor scaled(const at::Tensor& orthogonal, at::Tensor& second_moment,
                    double lr) const override;

 private:
  NorMuonOptions options_;
};

/// Registry entry "normuon".
std::shared_ptr<UpdateRule> make_normuon(const std::string& options_json);

}  // namespace mnemosyne::optim
