#include "mnemosyne/io/metrics.h"

#include <filesystem>
#include <fstream>
#include <limits>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/crc32c.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/io/record.h"
#include "testing.h"

namespace mnemosyne::io {
namespace {

namespace fs = std::filesystem;

std::string fresh_folder(const std::string& name) {
  const fs::path folder = testing::temporary_path(name);
  fs::remove_all(folder);
  return folder.string();
}

void write_steps(MetricSink& sink, int64_t first, int64_t last) {
  for (int64_t step = first; step <= last; ++step) {
    sink.write(step, {{"loss", 1.0 / static_cast<double>(step)}});
  }
  sink.flush();
}

// Sizes of everything in the event file but its wall times, which differ between runs.
size_t events_size(const std::string& folder) {
  return fs::file_size(folder + "/events.out.tfevents.mnemosyne");
}

TEST(Crc32c, HasTheValuesOfTheStandard) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c("6789", crc32c("12345")), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
}

TEST(Record, IsOneLineOfJson) {
  const Record record{{"name", std::string("a\n\"b\"\xff")},
                      {"count", int64_t{3}},
                      {"yes", true},
                      {"values", std::vector<double>{1, 0.5}},
                      {"loss", std::numeric_limits<double>::infinity()}};
  EXPECT_EQ(to_json(record),
            R"({"name":"a\n\"b\"\ufffd","count":3,"yes":true,"values":[1.0,0.5],"loss":null})");
}

TEST(MetricSink, WritesOneLineAStep) {
  const std::string folder = fresh_folder("metrics_lines");
  MetricSink sink = MetricSink::open(folder);
  sink.write(1, {{"loss", 0.5}, {"rate", 1.0}});
  sink.write(2, {{"loss", std::numeric_limits<double>::quiet_NaN()}});
  sink.flush();
  EXPECT_EQ(read_file(folder + "/metrics.jsonl"),
            "{\"step\":1,\"loss\":0.5,\"rate\":1.0}\n{\"step\":2,\"loss\":null}\n");
}

TEST(MetricSink, ResumedRunLeavesTheSameFilesAsAnUninterruptedOne) {
  const std::string whole = fresh_folder("metrics_whole");
  const std::string parts = fresh_folder("metrics_parts");
  MetricSink sink = MetricSink::open(whole);
  write_steps(sink, 1, 200);
  {
    MetricSink first = MetricSink::open(parts);
    write_steps(first, 1, 160);
  }
  // Killed in the middle of a line and of an event.
  std::ofstream(parts + "/metrics.jsonl", std::ios::app) << "{\"step\":161,\"lo";
  std::ofstream(parts + "/events.out.tfevents.mnemosyne", std::ios::app) << "abc";
  MetricSink second = MetricSink::open(parts, 150);
  write_steps(second, 151, 200);
  EXPECT_EQ(read_file(parts + "/metrics.jsonl"), read_file(whole + "/metrics.jsonl"));
  EXPECT_EQ(events_size(parts), events_size(whole));
}

TEST(MetricSink, StartsAnewWithoutAStep) {
  const std::string folder = fresh_folder("metrics_anew");
  {
    MetricSink sink = MetricSink::open(folder);
    write_steps(sink, 1, 10);
  }
  MetricSink sink = MetricSink::open(folder);
  write_steps(sink, 1, 1);
  EXPECT_EQ(read_file(folder + "/metrics.jsonl"), "{\"step\":1,\"loss\":1.0}\n");
}

TEST(MetricSink, NamesAFolderThatCannotBe) {
  EXPECT_THROW(MetricSink::open("/dev/null/metrics"), InputError);
  MetricSink nowhere;
  nowhere.write(1, {{"loss", 1.0}});
  nowhere.flush();
}

}  // namespace
}  // namespace mnemosyne::io
