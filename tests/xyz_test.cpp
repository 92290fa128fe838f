#include "mnemosyne/tasks/data/xyz.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "mnemosyne/io/xz_source.h"
#include "mnemosyne/tasks/data/molecule_files.h"
#include "tests/data_files.h"
#include "tests/testing.h"

namespace mnemosyne::tasks {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::gzip;
using mnemosyne::testing::real_data;
using mnemosyne::testing::refusal;
using mnemosyne::testing::tar_member;
using mnemosyne::testing::TestFolder;

const std::vector<int64_t> kElements{1, 6, 7, 8, 16};
const std::string kWater =
    "3\ntwo lengths of equal energy\nO 0 0 .5\nH 1.0 -2e-1 0 0.4\n H +1 0 0\n";

std::vector<XyzFrame> read(const std::string& text) {
  XyzReader reader(io::open_bytes(text, "the_file"));
  std::vector<XyzFrame> frames;
  XyzFrame frame;
  while (reader.next(frame)) frames.push_back(frame);
  return frames;
}

std::string bad(const std::string& text) {
  const std::string message = refusal([&] { read(text); });
  EXPECT_MENTIONS(message, "of the_file");
  return message;
}

TEST(Xyz, ReadsFramesOneBehindTheOther) {
  const auto frames = read(kWater + "\n" + "1\n\nSe\t1 2 3");
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0].elements, (std::vector<int64_t>{8, 1, 1}));
  EXPECT_EQ(frames[0].positions[1], (std::array<double, 3>{1.0, -0.2, 0.0}));
  EXPECT_FALSE(frames[0].energy.has_value());
  EXPECT_TRUE(frames[0].forces.empty());
  EXPECT_EQ(frames[1].elements, (std::vector<int64_t>{34}));
  EXPECT_EQ(atomic_number("Og"), 118);
  EXPECT_EQ(atomic_number("c"), 6);
  EXPECT_EQ(atomic_number("CL"), 17);
  EXPECT_EQ(atomic_number("nA"), 11);
  for (const char* none : {"", "X", "D", "H1", "[", "\xc3\x89"}) EXPECT_EQ(atomic_number(none), 0);
  EXPECT_TRUE(read("\n \n").empty());
}

TEST(Xyz, ReadsTheColumnsOfAnExtendedFile) {
  const auto frames = read(
      "1\r\nLattice=\"9 0 0 0 9 0 0 0 9\" Properties=id:I:1:forces:R:3:species:S:1:Z:I:1:pos:R:3 "
      "title=\"energy=7 x\" energy=-2.5 pbc=\"T T F\" flag\r\n4 .1 .2 .3 N 7 1 2 3 rest\r\n");
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].elements[0], 7);
  EXPECT_EQ(frames[0].forces[0], (std::array<double, 3>{.1, .2, .3}));
  EXPECT_EQ(frames[0].positions[0], (std::array<double, 3>{1, 2, 3}));
  EXPECT_EQ(*frames[0].energy, -2.5);
  EXPECT_EQ((*frames[0].lattice)[4], 9);
}

// Beside ASE on many more spellings: tests/python/test_xyz_ase.py and test_xyz_fuzz.py.
TEST(Xyz, AnEnergyInsideQuotesIsNone) {
  const auto energy = [](const std::string& comment) {
    return read("1\n" + comment + "\nH 0 0 0\n").at(0).energy;
  };
  for (const char* comment :
       {"energy=-5.5", "energy = -5.5 eV", "energy='-5.5'", "\"energy\" ={-5.5}",
        R"(note="said \" energy=5 \" once" energy=-5.5)",
        R"(energy=-5.5 note="a \" energy=5 \" b")", "energy=-5.5 name='a energy=5 b'",
        "name=[a energy=5 b] energy=-5.5", "note=a\\ energy=5 energy=-5.5",
        "energy=-5.5 don't energy=5"}) {
    EXPECT_EQ(energy(comment), -5.5) << comment;
  }
  for (const char* comment : {"", "of lowest energy", "'energy=5", "ENERGY=5", "x energy\\=5"}) {
    EXPECT_EQ(energy(comment), std::nullopt) << comment;
  }
}

TEST(Xyz, AnAtomicNumberCountsWhereThereIsOne) {
  const auto frames = read(
      "2\nProperties=species:S:1:pos:R:3:Z:I:1\nCA 0 0 0 6\nHO 1 0 0 1\n"
      "1\nProperties=positions:R:3:numbers:I:1\n1 2 3 17\n");
  EXPECT_EQ(frames[0].elements, (std::vector<int64_t>{6, 1}));
  EXPECT_EQ(frames[1].elements, (std::vector<int64_t>{17}));
  EXPECT_EQ(frames[1].positions[0], (std::array<double, 3>{1, 2, 3}));
  for (const char* number : {"0", "119", "-1", "6.0", "C"}) {
    EXPECT_MENTIONS(bad("1\nProperties=Z:I:1:pos:R:3\n" + std::string(number) + " 0 0 0\n"),
                    "atomic number from 1 to 118");
  }
}

TEST(Xyz, RefusesBadFramesByLine) {
  EXPECT_MENTIONS(bad("-3\n\n"), "atoms from 1 to 100000, got \"-3\" in line 1");
  for (const char* count :
       {"0", "100001", "99999999999999999999", "3.5", "0x3", "molecule", "3 4"}) {
    EXPECT_MENTIONS(bad(std::string(count) + "\n\nH 0 0 0\n"), "line 1");
  }
  EXPECT_MENTIONS(bad("2"), "expected a comment, got the end of the file in line 1");
  EXPECT_MENTIONS(bad("100000\nall of them\nH 0 0 0\n"), "atom 2 of 100000, got the end");
  EXPECT_MENTIONS(bad("2\n\nH 0 0 0\nXx 0 0 0\n"), "an element, got \"Xx\" in line 4");
  EXPECT_MENTIONS(bad("2\n\nH 0 0 0\nH 0 0\n"), "4 columns or more, got 3 in line 4");
  EXPECT_MENTIONS(bad("2\n\nH 0 0 0\n\n"), "got 0 in line 4");
  for (const char* number : {"nan", "inf", "-inf", "1e999", "1e10", "1.2.3", "--1", "+-1", "++1",
                             "1D3", "0x10", "1_0", "nan(1)", "1,0", "+"}) {
    const std::string message = bad("1\n\nH 0 " + std::string(number) + " 0\n");
    EXPECT_MENTIONS(message, "a finite number");
    EXPECT_MENTIONS(message, "in line 3");
  }
  EXPECT_MENTIONS(bad(kWater + kWater.substr(0, 37)), "line 8");
  EXPECT_MENTIONS(bad(std::string("1\n\nH 0 0 \0", 10)), "zero byte in line 3");
  EXPECT_MENTIONS(bad("\x1b[31m\n"), "\"\\x1b[31m\"");
}

TEST(Xyz, RefusesBadComments) {
  const auto with = [](const std::string& comment) {
    return bad("1\n" + comment + "\nH 0 0 0 0 0 0\n");
  };
  EXPECT_MENTIONS(with("Properties=pos:R:3"), "species:S:1 or Z:I:1, and pos:R:3");
  EXPECT_MENTIONS(with("Properties=species:S:1:pos:R:2"), "in line 2");
  EXPECT_MENTIONS(with("Properties=species:S:1:pos:R:3:more"), "in line 2");
  EXPECT_MENTIONS(with("Properties=species:S:-1:pos:R:3"), "1 to 100 columns");
  EXPECT_MENTIONS(with("Properties=species:S:1:pos:R:3:x:R:99999999999"), "1 to 100 columns");
  EXPECT_MENTIONS(with("Properties=species:S:1:pos:R:3:forces:R:3:q:R:1"),
                  "8 columns or more, got 7");
  EXPECT_MENTIONS(with("Properties=species:S:1:pos:R:3 energy=nan"), "got \"nan\" in line 2");
  EXPECT_MENTIONS(with("energy=-1.5D+02"), "energy, got \"-1.5D+02\" in line 2");
  EXPECT_MENTIONS(with("energy=1 energy=2"), "energy once, got \"1\" and \"2\" in line 2");
  EXPECT_MENTIONS(with("=5"), "a key before the first =, got \"=5\" in line 2");
  EXPECT_MENTIONS(with("Properties of nothing"), "got \"\" in line 2");
  EXPECT_MENTIONS(with("Properties=species:S:1:pos:R:3:pos:R:3"), "\"pos0\" again");
  EXPECT_MENTIONS(with("Properties=species:S:1:pos:R:3:id:I:1:q:Q:1"), "got \"Q\" in line 2");
  EXPECT_MENTIONS(with("stress='1 2 3'"), "9 numbers for stress, got 3");
  EXPECT_MENTIONS(with("pbc='T T'"), "1 or 3 values for pbc, got 2");
  EXPECT_MENTIONS(with("caf\xe9"), "UTF-8, got \"caf\\xe9\" in line 2");
  EXPECT_MENTIONS(bad("1\nProperties=species:S:1:pos:R:3:id:I:1\nH 0 0 0 1.5\n"),
                  "a whole number of 32 bits in column 5, got \"1.5\" in line 3");
  EXPECT_MENTIONS(with("Properties=species:S:1:pos:R:3 energy="), "in line 2");
  EXPECT_MENTIONS(with("Properties=species:S:1:pos:R:3 Lattice=\"1 2 3"),
                  "9 numbers for Lattice, got 3");
}

std::string molecule(int i) { return "2\ncharge = 0\nC 0 0 0\nH " + std::to_string(i) + " 0 0\n"; }

std::string energy_line(int i) {
  return std::to_string(i) + ".xyz " + std::to_string(-10 * i) + " 1\n";
}

class Qm7 : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string table;
    for (int i = 1; i <= 20; ++i) {
      table += energy_line(i);
      archive_ += tar_member("qm7/" + std::to_string(i) + ".xyz", molecule(i));
    }
    folder_.write("hof_qm7.txt", table);
  }

  std::string refused() const {
    return refusal([&] { read_qm7(folder_.path(), kElements); });
  }

  TestFolder folder_{"qm7"};
  std::string archive_;
};

TEST_F(Qm7, SplitsAnArchive) {
  folder_.write("qm7.tar.gz", gzip(archive_));
  const MoleculeData data = read_qm7(folder_.path(), kElements);
  EXPECT_EQ(data.train.size(), 14u);
  EXPECT_EQ(data.test.size(), 4u);
  std::vector<int64_t> all = data.train;
  all.insert(all.end(), data.test.begin(), data.test.end());
  const at::Tensor atoms = data.molecules.atoms(all);
  EXPECT_EQ(atoms.sizes(), at::IntArrayRef({18, 2, 4}));
  EXPECT_EQ(atoms[0][0][0].item<float>(), 1.0f);
  // Every molecule has the energy of its own name.
  EXPECT_TRUE(close(data.molecules.energies(all), -10 * atoms.select(1, 1).select(1, 1)));
  EXPECT_EQ(std::get<0>(at::_unique(data.molecules.energies(all))).size(0), 18);
  // All molecules are alike in composition, which then explains the mean alone.
  const at::Tensor train = data.molecules.energies(data.train);
  EXPECT_NEAR(data.energy_scale, train.std(false).item<double>(), 1e-9);
  EXPECT_TRUE(close(targets(data, all) * data.energy_scale,
                    data.molecules.energies(all) - train.mean(), {.rtol = 0, .atol = 1e-8}));
}

TEST_F(Qm7, ReadsAFolderAsIt) {
  folder_.write("qm7.tar", archive_);
  const MoleculeData packed = read_qm7(folder_.path(), kElements);
  const TestFolder plain("qm7_plain");
  std::string table;
  for (int i = 1; i <= 20; ++i) {
    plain.write("qm7/" + std::to_string(i) + ".xyz", molecule(i));
    table += energy_line(i);
  }
  plain.write("hof_qm7.txt", table);
  const MoleculeData data = read_qm7(plain.path(), kElements);
  EXPECT_TRUE(at::equal(data.molecules.atoms(data.train), packed.molecules.atoms(packed.train)));
}

TEST_F(Qm7, PassesOverWhatAMacPutsBeside) {
  const std::string mac("\0\5\x16\7 Mac OS X", 13);
  std::string archive, table;
  const TestFolder plain("qm7_mac");
  for (int i = 1; i <= 20; ++i) {
    const std::string name = std::to_string(i) + ".xyz";
    archive += tar_member("qm7/._" + name, mac) + tar_member("qm7/" + name, molecule(i));
    plain.write("._" + name, mac);
    plain.write(name, i % 2 == 0 ? molecule(i) : gzip(molecule(i)));
    table += energy_line(i);
  }
  plain.write("hof_qm7.txt", table);
  folder_.write("qm7.tar", archive);
  const MoleculeData data = read_qm7(folder_.path(), kElements);
  const MoleculeData unpacked = read_qm7(plain.path(), kElements);
  EXPECT_EQ(data.molecules.size(), 20);
  EXPECT_TRUE(at::equal(data.molecules.atoms(data.train), unpacked.molecules.atoms(data.train)));
}

TEST_F(Qm7, TheTableMayBeOfAnySystem) {
  folder_.write("qm7.tar", archive_);
  const MoleculeData expected = read_qm7(folder_.path(), kElements);
  for (const char* end : {"\r\n", "\r"}) {
    std::string table;
    for (int i = 1; i <= 20; ++i) {
      table += "  " + std::to_string(i) + ".xyz\t" + (i == 1 ? "+" : "-") +
               std::to_string(i == 1 ? 0 : 10 * i) + ".0 1" + end;
    }
    folder_.write("hof_qm7.txt", table);
    const at::Tensor energies = read_qm7(folder_.path(), kElements).molecules.energies({1, 2});
    EXPECT_TRUE(at::equal(energies, expected.molecules.energies({1, 2})));
  }
}

TEST_F(Qm7, RefusesWhatDoesNotFitTogether) {
  EXPECT_MENTIONS(refused(), "a molecule for each line of hof_qm7.txt");
  folder_.write("qm7.tar", archive_.substr(0, 10 * 1024 + 520));
  EXPECT_MENTIONS(refused(), "qm7.tar");
  folder_.write("qm7.tar", archive_ + tar_member("qm7/21.xyz", molecule(21)));
  EXPECT_MENTIONS(refused(), "member \"qm7/21.xyz\"");
  EXPECT_MENTIONS(refused(), "hof_qm7.txt");
  folder_.write("qm7.tar", archive_ + tar_member("again/1.xyz", molecule(1)));
  EXPECT_MENTIONS(refused(), "every molecule once");
  folder_.write("qm7.tar", archive_ + tar_member("qm7/21.xyz", "2\n\nC 0 0 0\nU 0 0 1\n"));
  folder_.write("hof_qm7.txt", energy_line(21));
  EXPECT_MENTIONS(refused(), "an energy for");
  folder_.write("qm7.tar", tar_member("21.xyz", "2\n\nC 0 0 0\nU 0 0 1\n"));
  EXPECT_MENTIONS(refused(), "atomic number 1, 6, 7, 8, 16, got 92");
  folder_.write("qm7.tar", tar_member("21.xyz", molecule(21)));
  EXPECT_MENTIONS(refused(), "10 molecules or more, got 1");
  const std::string far(90, 'd');
  folder_.write("qm7.tar", tar_member(far + "/21.xyz", "2\n\nC 0 0 0\n"));
  EXPECT_MENTIONS(refused(), "ddd/21.xyz\")");
  for (const char* line : {"21.xyz", "21.xyz nan", "21.xyz +-1", "21.xyz -1D2", "21.xyz -1e99",
                           "21.xyz 1\n21.xyz 2"}) {
    folder_.write("hof_qm7.txt", line);
    EXPECT_MENTIONS(refused(), "hof_qm7.txt");
  }
}

TEST(Molecules, ArePaddedToTheLargestOfTheBatch) {
  MoleculeSet set(kElements);
  set.add(read(kWater)[0], -1.0, "here");
  set.add(read("1\n\nS 1 2 3\n")[0], -2.0, "here");
  const at::Tensor atoms = set.atoms({1, 0});
  EXPECT_EQ(atoms.sizes(), at::IntArrayRef({2, 3, 4}));
  EXPECT_TRUE(
      close(atoms[0], at::tensor({4., 1., 2., 3., -1., 0., 0., 0., -1., 0., 0., 0.}).view({3, 4})));
  EXPECT_TRUE(close(set.energies({1, 0}), at::tensor({-2., -1.})));
  EXPECT_EQ(set.atoms({1}).size(1), 1);
}

TEST(Molecules, CompositionIsTakenOutOfTheEnergies) {
  // Energies -3 - 10 per hydrogen - 100 per oxygen, and what the fit cannot know: +1 and -1.
  MoleculeData data{.molecules = MoleculeSet(kElements), .train = {}, .test = {}};
  const auto add = [&](const std::string& text, double energy) {
    data.train.push_back(data.molecules.size());
    data.molecules.add(read(text)[0], energy, "here");
  };
  for (const double rest : {1.0, -1.0}) {
    add("1\n\nH 0 0 0\n", -13.0 + rest);
    add("1\n\nO 0 0 0\n", -103.0 + rest);
    add(kWater, -123.0 + rest);
  }
  measure(data);
  EXPECT_EQ(data.molecules.compositions({2})[0][0].item<double>(), 2.0);
  EXPECT_NEAR(data.energy_scale, 1.0, 1e-9);
  EXPECT_TRUE(close(targets(data, data.train), at::tensor({1., 1., 1., -1., -1., -1.}, at::kDouble),
                    {.rtol = 0, .atol = 1e-8}));
}

TEST(Molecules, OfMotionComeFromTwoFiles) {
  const TestFolder folder("rmd17");
  const std::string frame =
      "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1\nC 0 0 0 1 1 1\n";
  folder.write("x_train.xyz", frame + frame);
  EXPECT_MENTIONS(refusal([&] { read_rmd17(folder.path(), kElements); }),
                  "ends in test.xyz, got 0");
  folder.write("x_test.xyz.gz", gzip(frame));
  const MoleculeData data = read_rmd17(folder.path(), kElements);
  EXPECT_EQ(data.train, (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(data.test, (std::vector<int64_t>{2}));
  EXPECT_GT(data.energy_scale, 0.0);
  folder.write("._x_train.xyz", "what a Mac puts beside");
  folder.write("._x_test.xyz.gz", "what a Mac puts beside");
  EXPECT_EQ(read_rmd17(folder.path(), kElements).test.size(), 1u);
  folder.write("x_train.xyz", kWater);
  EXPECT_MENTIONS(refusal([&] { read_rmd17(folder.path(), kElements); }),
                  "an energy in the comment");
}

// "a b\nc\n" as xz packs it (Python's lzma.compress).
std::string small_xz() {
  return std::string(
      "\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01"
      "\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x05\x61\x20\x62\x0a\x63"
      "\x0a\x00\x00\x00\x5a\x22\xfc\xa5\x44\x63\xeb\xa8\x00\x01\x1e\x06"
      "\xc1\x2f\xa4\x1d\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a",
      64);
}

TEST(Xz, IsUnpackedOrRefused) {
  const TestFolder folder("xz");
  const std::string good = small_xz();
  const auto content = [&](const std::string& bytes) {
    const auto source = io::open_unpacked(folder.write("file", bytes));
    std::string text(100, '\0');
    size_t size = 0;
    while (const size_t count = source->read(text.data() + size, 1)) size += count;
    return text.substr(0, size);
  };
  if (!io::has_xz()) {
    EXPECT_MENTIONS(refusal([&] { content(good); }), "without liblzma");
    GTEST_SKIP() << "built without liblzma";
  }
  EXPECT_EQ(content(good), "a b\nc\n");
  EXPECT_EQ(content(good + good), "a b\nc\na b\nc\n");
  for (size_t size = 6; size < good.size(); ++size) {
    EXPECT_MENTIONS(refusal([&] { content(good.substr(0, size)); }), "ends too early");
  }
  EXPECT_MENTIONS(refusal([&] { content(good + "rest"); }), folder.path());
  for (const size_t place : {8, 14, 25, 40, 60}) {
    std::string damaged = good;
    damaged[place] ^= 0x40;
    EXPECT_MENTIONS(refusal([&] { content(damaged); }), "[xz]");
  }
}

TEST(Qm7Data, HasTheEnergiesOfItsReadme) {
  const std::string folder = real_data("qm7_xyz");
  if (folder.empty()) GTEST_SKIP() << "needs MNEMOSYNE_DATA with qm7_xyz";
  if (!io::has_xz()) GTEST_SKIP() << "built without liblzma";
  const MoleculeData data = read_qm7(folder, kElements);
  EXPECT_EQ(data.train.size(), 5601u);
  EXPECT_EQ(data.test.size(), 1000u);
  EXPECT_EQ(data.molecules.size(), 7101);
  const at::Tensor energies = data.molecules.energies(data.train);
  EXPECT_NEAR(energies.mean().item<double>(), -1536.3, 5.0);
  EXPECT_NEAR(energies.std().item<double>(), 223.2, 5.0);
  EXPECT_LT(data.energy_scale, 20.0) << "composition explains nearly all";
  EXPECT_EQ(data.molecules.atoms(data.train).size(1), 23);
}

TEST(Rmd17Data, IsReadWhole) {
  const std::string folder = real_data("rmd17_aspirin");
  if (folder.empty()) GTEST_SKIP() << "needs MNEMOSYNE_DATA with rmd17_aspirin";
  const MoleculeData data = read_rmd17(folder, kElements);
  EXPECT_EQ(data.train.size(), 1200u);
  EXPECT_EQ(data.test.size(), 1800u);
  EXPECT_EQ(data.molecules.atoms({0, 2999}).sizes(), at::IntArrayRef({2, 21, 4}));
}

}  // namespace
}  // namespace mnemosyne::tasks
