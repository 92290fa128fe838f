#include "mnemosyne/tasks/suites.h"

namespace mnemosyne::tasks {

const std::vector<std::string>& validation_suite() {
  static const std::vector<std::string> cells = {"mlp_fashion_wide@100",
                                                 "conv_mnist@100",
                                                 "vit_digits@500",
                                                 "mlp_mnist_deep@500",
                                                 "autoencoder_mnist@500",
                                                 "conv_cifar@500",
                                                 "gru_lm@500",
                                                 "vit_fashion@500",
                                                 "char_lm@500",
                                                 "mlp_digits_interpolate@2000",
                                                 "conv_mnist@2000"};
  return cells;
}

const std::vector<std::string>& test_suite() {
  static const std::vector<std::string> cells = {
      "conv_fashion@100",         "resnet_cifar@200",   "resnet_fashion@500",
      "mixer_fashion@500",        "mlp_cifar_norm@500", "text_trec@500",
      "tied_word_lm@500",         "gru_word_lm@500",    "flt_qm7:softmax-rope@300",
      "autoencoder_fashion@1000", "text_trec@2000",     "mlp_solubility@5000"};
  return cells;
}

std::vector<std::string> expand_suite(const std::string& name) {
  if (name == "validation") return validation_suite();
  if (name == "test") return test_suite();
  return {name};
}

}  // namespace mnemosyne::tasks
