#include "mnemosyne/meta/process_group.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include "meta_toys.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/evolution.h"
#include "mnemosyne/meta/exchange.h"
#include "mnemosyne/meta/mixture.h"
#include "mnemosyne/meta/persistent_evolution.h"
#include "mnemosyne/meta/trainer.h"
#include "mnemosyne/meta/truncated_gradient.h"
#include "testing.h"

// Ranks are threads here, each with a group of its own; tests/python/test_meta_processes.py starts
// processes.
namespace mnemosyne::meta {
namespace {

using mnemosyne::testing::identical;
using mnemosyne::testing::ToyFamily;
using mnemosyne::testing::ToyRule;

int64_t free_port() {
  const int handle = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(handle, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(handle, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(handle);
  return ntohs(address.sin_port);
}

using Work = std::function<void(ProcessGroup&)>;

// What each rank said when it ended, "" where it ended well: all ranks do `work`.
std::vector<std::string> on_ranks(int64_t size, double timeout, const Work& work) {
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::vector<std::thread> ranks;
  const int64_t port = free_port();
  for (int64_t rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      try {
        const auto processes = join_process_group(
            {.rank = rank, .size = size, .address = "127.0.0.1", .port = port, .timeout = timeout});
        work(*processes);
        processes->finish();
      } catch (const std::exception& error) {
        errors[static_cast<size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return errors;
}

void on_well_ranks(int64_t size, const Work& work) {
  for (const std::string& error : on_ranks(size, 20, work)) EXPECT_EQ(error, "");
}

bool is_distributed() {
  try {
    join_process_group({});
    return true;
  } catch (const InputError&) {
    return false;
  }
}

class ProcessGroups : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_distributed()) GTEST_SKIP() << "torch was built without torch.distributed";
  }
};

TEST_F(ProcessGroups, GatherInTheOrderOfRanks) {
  on_well_ranks(3, [](ProcessGroup& processes) {
    const std::string own = std::to_string(processes.rank());
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(processes.all_gather(own + "x"), (std::vector<std::string>{"0x", "1x", "2x"}));
      const auto gathered = processes.gather(own + "y");
      EXPECT_EQ(gathered.size(), processes.is_root() ? 3u : 0u);
      if (processes.is_root()) {
        EXPECT_EQ(gathered[2], "2y");
      }
      EXPECT_EQ(processes.broadcast(own), "0");
      EXPECT_TRUE(processes.any(processes.rank() == 1));
      EXPECT_FALSE(processes.any(false));
    }
  });
}

TEST_F(ProcessGroups, CarryMoreThanAValueOfTheStoreHolds) {
  const auto bytes = [](int64_t rank) {
    std::string result(static_cast<size_t>((9 << 20) + rank), '\0');
    for (size_t i = 0; i < result.size(); i += 1000) result[i] = static_cast<char>(i / 1000);
    return result;
  };
  on_well_ranks(2, [&](ProcessGroup& processes) {
    const auto all = processes.all_gather(bytes(processes.rank()));
    EXPECT_TRUE(all[0] == bytes(0) && all[1] == bytes(1));
  });
}

TEST_F(ProcessGroups, EveryItemIsOfOneRank) {
  on_well_ranks(3, [](ProcessGroup& processes) {
    std::vector<std::vector<double>> items(5);
    std::vector<NamedTensors> tensors(5);
    for (const int64_t i : processes.own_items(5)) {
      items[static_cast<size_t>(i)] = std::vector<double>(static_cast<size_t>(i), 0.1 * i);
      tensors[static_cast<size_t>(i)] = {{"item" + std::to_string(i), at::tensor({i})}};
    }
    items = all_numbers(processes, items);
    for (int64_t i = 0; i < 5; ++i) {
      EXPECT_EQ(items[static_cast<size_t>(i)],
                std::vector<double>(static_cast<size_t>(i), 0.1 * i));
    }
    const NamedTensors gathered = gather_tensors(processes, tensors);
    EXPECT_EQ(gathered.size(), processes.is_root() ? 5u : 0u);
    for (size_t i = 0; i < gathered.size(); ++i) {
      EXPECT_EQ(gathered[i].first, "item" + std::to_string(i));
      EXPECT_EQ(gathered[i].second.item<int64_t>(), static_cast<int64_t>(i));
    }
  });
}

TEST_F(ProcessGroups, ContributionsArriveBitForBit) {
  const std::vector<MetaGradient> whole{
      {.gradient = at::tensor({0.1f, -3e-40f}), .meta_loss = 0.1, .inner_steps = 7},
      {.meta_loss = std::nan(""), .skipped = 1, .runs = {{"a\"b", 3, std::nan("")}, {"c", 4, 0.3}}},
      {.gradient = at::tensor({std::nanf(""), 1.0f})}};
  on_well_ranks(2, [&](ProcessGroup& processes) {
    std::vector<MetaGradient> own(3);
    for (const int64_t i : processes.own_items(3)) own[i] = whole[static_cast<size_t>(i)];
    const std::vector<MetaGradient> all = all_contributions(processes, own);
    EXPECT_TRUE(identical(all[0].gradient, whole[0].gradient));
    EXPECT_EQ(all[0].meta_loss, 0.1);
    EXPECT_EQ(all[0].inner_steps, 7);
    EXPECT_FALSE(all[1].gradient.defined());
    EXPECT_TRUE(std::isnan(all[1].meta_loss) && std::isnan(all[1].runs[0].meta_loss));
    EXPECT_EQ(all[1].skipped, 1);
    EXPECT_EQ(all[1].runs[0].task, "a\"b");
    EXPECT_EQ(all[1].runs[1].num_steps, 4);
    EXPECT_EQ(all[1].runs[1].meta_loss, 0.3);
    EXPECT_TRUE(at::isnan(all[2].gradient[0]).item<bool>());
  });
}

TEST_F(ProcessGroups, EndWithARankThatEnds) {
  const auto errors = on_ranks(3, 20, [](ProcessGroup& processes) {
    if (processes.rank() == 1) throw InputError("[data] expected some, got none");
    processes.all_gather("");
  });
  EXPECT_EQ(errors[1], "[data] expected some, got none");
  EXPECT_EQ(errors[0], "[processes] expected every rank to go on, got the end of rank 1");
  EXPECT_EQ(errors[2], errors[0]);
}

TEST_F(ProcessGroups, EndWithTheRankThatKeepsTheStore) {
  const auto errors = on_ranks(2, 20, [](ProcessGroup& processes) {
    if (processes.is_root()) throw InputError("[data] expected some, got none");
    processes.all_gather("");
  });
  EXPECT_EQ(errors[1], "[processes] expected every rank to go on, got the end of rank 0");
}

TEST_F(ProcessGroups, WaitForASlowRankLongerThanForALostOne) {
  for (const std::string& error : on_ranks(2, 0.2, [](ProcessGroup& processes) {
         if (processes.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1500));
         processes.all_gather("");
       })) {
    EXPECT_EQ(error, "");
  }
}

TEST_F(ProcessGroups, WaitForRanksThatHaveNotComeButNotForEver) {
  const auto join = [](int64_t rank) {
    join_process_group(
        {.rank = rank, .size = 2, .address = "127.0.0.1", .port = free_port(), .timeout = 0.1});
  };
  EXPECT_THROW(join(0), RankLost);
  EXPECT_THROW(join(1), InputError) << "without a store";
}

TEST_F(ProcessGroups, RefuseWhatIsNoGroup) {
  const ProcessGroupOptions good{.rank = 1, .size = 2, .address = "127.0.0.1", .port = 1};
  for (const auto& spoil : std::vector<std::function<void(ProcessGroupOptions&)>>{
           [](auto& o) { o.rank = 2; }, [](auto& o) { o.rank = -1; }, [](auto& o) { o.size = 0; },
           [](auto& o) { o.address = ""; }, [](auto& o) { o.port = 0; },
           [](auto& o) { o.port = 65536; }, [](auto& o) { o.timeout = 0; }}) {
    ProcessGroupOptions bad = good;
    spoil(bad);
    EXPECT_THROW(join_process_group(bad), InputError);
  }
  EXPECT_EQ(join_process_group({})->size(), 1);
}

RunSampler toy_sampler() {
  return RunSampler({std::make_shared<ToyFamily>(0.3)}, {.min_steps = 8});
}

std::unique_ptr<GradientEstimator> make_mixture() {
  std::vector<MixtureEstimator::Part> parts;
  parts.push_back(
      {1.0, std::make_unique<EvolutionEstimator>(toy_sampler(), EvolutionOptions{.num_tasks = 3})});
  parts.push_back(
      {0.5, std::make_unique<TruncatedGradientEstimator>(
                toy_sampler(),
                TruncatedGradientOptions{.num_tasks = 5, .window = 5, .expert_rates = {0.3}})});
  parts.push_back(
      {0.5, std::make_unique<PersistentEvolutionEstimator>(
                toy_sampler(), PersistentEvolutionOptions{.num_tasks = 3, .window = 5})});
  return std::make_unique<MixtureEstimator>(std::move(parts));
}

Trainer toy_trainer(ProcessGroup& processes, int64_t num_outer_steps) {
  // The thread that calls owns its group.
  const std::shared_ptr<ProcessGroup> shared(&processes, [](ProcessGroup*) {});
  return Trainer(std::make_shared<ToyRule>(-4, 0), make_mixture(),
                 Validator({std::make_shared<ToyFamily>(0.3)}, {.tasks_per_family = 3}, 1),
                 {.seed = 7,
                  .num_outer_steps = num_outer_steps,
                  .num_workers = 1,
                  .validate_every = 2,
                  .processes = shared,
                  .outer = {.learning_rate = 0.1},
                  .horizon = {.lengths = {12, 24}, .steps_per_length = 4}});
}

NamedTensors without_times(NamedTensors tensors) {
  std::erase_if(tensors, [](const auto& named) { return named.first == "elapsed_seconds"; });
  return tensors;
}

void expect_identical(const NamedTensors& actual, const NamedTensors& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(actual[i].first, expected[i].first);
    EXPECT_TRUE(identical(actual[i].second, expected[i].second)) << expected[i].first;
  }
}

TEST_F(ProcessGroups, TrainTheSameWeightsAsOneProcess) {
  const auto single = alone();
  Trainer whole = toy_trainer(*single, 6);
  whole.run();
  for (const int64_t size : {2, 4}) {
    on_well_ranks(size, [&](ProcessGroup& processes) {
      Trainer trainer = toy_trainer(processes, 6);
      trainer.run();
      expect_identical(trainer.best_weights(), whole.best_weights());
      const NamedTensors checkpoint = trainer.checkpoint();
      if (processes.is_root()) {
        expect_identical(without_times(checkpoint), without_times(whole.checkpoint()));
      }
    });
  }
}

TEST_F(ProcessGroups, ContinueOnAnotherNumberOfRanks) {
  const std::string path = ::testing::TempDir() + "mnemosyne_ranks.safetensors";
  const auto single = alone();
  Trainer whole = toy_trainer(*single, 6);
  whole.run();
  const auto rest = [&](ProcessGroup& processes) {
    Trainer trainer = toy_trainer(processes, 6);
    trainer.load(path);
    EXPECT_EQ(trainer.outer_step(), 3);
    trainer.run();
    expect_identical(trainer.last_weights(), whole.last_weights());
    expect_identical(trainer.best_weights(), whole.best_weights());
  };
  on_well_ranks(2, [&](ProcessGroup& processes) {
    Trainer half = toy_trainer(processes, 3);
    half.run();
    half.save(path);
  });
  rest(*single);
  on_well_ranks(4, rest);
  std::filesystem::remove(path);
}

TEST_F(ProcessGroups, StopTogether) {
  on_well_ranks(2, [](ProcessGroup& processes) {
    Trainer trainer = toy_trainer(processes, 6);
    int asked = 0;
    trainer.run({.should_stop = [&] { return processes.rank() == 1 && ++asked == 2; }});
    EXPECT_EQ(trainer.outer_step(), 2);
  });
}

}  // namespace
}  // namespace mnemosyne::meta
