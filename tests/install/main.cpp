// Trains a small network with the optimizer of the installed library and the weights inside it.
#include <mnemosyne/optim/mnemosyne.h>
#include <torch/torch.h>

#include <cstdio>

int main() {
  torch::manual_seed(0);
  const auto x = torch::randn({64, 3});
  const auto target = x.select(1, 0) * x.select(1, 1);
  torch::nn::Sequential model(torch::nn::Linear(3, 16), torch::nn::Tanh(),
                              torch::nn::Linear(16, 1));
  mnemosyne::optim::Mnemosyne optimizer(model->parameters());

  double first = 0;
  double last = 0;
  for (int step = 0; step < 100; ++step) {
    optimizer.zero_grad();
    const auto loss = torch::mse_loss(model->forward(x).squeeze(1), target);
    loss.backward();
    optimizer.step();
    last = loss.item<double>();
    if (step == 0) first = last;
  }
  std::printf("loss %.4f -> %.4f\n", first, last);
  return last < 0.8 * first ? 0 : 1;
}
