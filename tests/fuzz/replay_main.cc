// Runs a fuzz target without libFuzzer: on its seeds, on the inputs in
// corpus/<target>/, and on a fixed number of mutations of both. The mutations
// are the same in every run.
//
//   codec_object_fuzz_replay                     seeds and 4000 mutations
//   codec_object_fuzz_replay --mutations N       seeds and N mutations
//   codec_object_fuzz_replay --write-seeds DIR   writes a corpus for libFuzzer
//   codec_object_fuzz_replay FILE...             runs libFuzzer's findings

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/fuzz/fuzz_target.h"

namespace {

void Run(const std::string& input) {
  // A copy of exactly that size, so that a sanitizer sees any over-read.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    std::exit(1);
  }
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// The inputs in corpus/<target>/ (former findings and small inputs), in the
// order of their names, then the target's own seeds.
std::vector<std::string> AllSeeds() {
  std::vector<std::filesystem::path> kept;
  std::error_code none;
  for (const auto& entry :
       std::filesystem::directory_iterator(KDN_FUZZ_CORPUS, none)) {
    kept.push_back(entry.path());
  }
  std::sort(kept.begin(), kept.end());
  std::vector<std::string> seeds;
  for (const std::filesystem::path& path : kept) {
    seeds.push_back(ReadAll(path));
  }
  for (std::string& seed : kdn::fuzz::Seeds()) {
    seeds.push_back(std::move(seed));
  }
  return seeds;
}

// Values for which length and count fields often go wrong.
constexpr uint32_t kEdges[] = {0,          1,          0x7f,       0xff,
                               0x7fff,     0xffff,     0x7fffffff, 0x80000000,
                               0xffffffff, 0xfffffffe, 4096,       4097};

void MutateOnce(std::mt19937* rng, std::string* input) {
  const auto below = [rng](size_t bound) {
    return static_cast<size_t>((*rng)() % bound);
  };
  if (input->empty()) {
    input->push_back(static_cast<char>((*rng)()));
    return;
  }
  const size_t at = below(input->size());
  switch (below(12)) {
    case 0:
      (*input)[at] = static_cast<char>((*input)[at] ^ (1 << below(8)));
      return;
    case 1:
      (*input)[at] = static_cast<char>((*rng)());
      return;
    case 2: {  // little-endian, like most fields
      const uint32_t edge = kEdges[below(std::size(kEdges))];
      for (size_t i = 0; i < 4 && at + i < input->size(); ++i) {
        (*input)[at + i] = static_cast<char>(edge >> (8 * i));
      }
      return;
    }
    case 3:  // cases 3 to 5 change the length
      input->resize(at);
      return;
    case 4:
      input->insert(at, input->substr(below(input->size()), below(64)));
      return;
    case 5:
      input->erase(at, 1 + below(64));
      return;
    default:
      (*input)[at] = static_cast<char>((*input)[at] + 1 + below(16));
      return;
  }
}

// Changes a quarter of the inputs in the first 64 bytes, where headers are, and
// a quarter of the inputs in four places. Most changes are small, so that they
// get past the first check.
void Mutate(std::mt19937* rng, std::string* input) {
  const size_t rounds = (*rng)() % 4 == 0 ? 4 : 1;
  const bool header = (*rng)() % 4 == 0;
  for (size_t i = 0; i < rounds; ++i) {
    if (header && input->size() > 64) {
      std::string head = input->substr(0, 64);
      MutateOnce(rng, &head);
      input->replace(0, 64, head);
    } else {
      MutateOnce(rng, input);
    }
  }
}

int WriteSeeds(const std::string& folder) {
  int number = 0;
  for (const std::string& seed : AllSeeds()) {
    const std::string path = folder + "/seed-" + std::to_string(number++);
    std::ofstream file(path, std::ios::binary);
    file << seed;
    if (!file.flush()) {
      std::fprintf(stderr, "cannot write %s\n", path.c_str());
      return 1;
    }
  }
  return 0;
}

int Replay(int mutations) {
  constexpr uint32_t kRngSeed = 20240229;
  std::mt19937 rng(kRngSeed);
  const std::vector<std::string> seeds = AllSeeds();
  for (const std::string& seed : seeds) Run(seed);
  for (int i = 0; i < mutations; ++i) {
    std::string input = seeds[i % seeds.size()];
    Mutate(&rng, &input);
    Run(input);
  }
  std::printf("%zu seeds and %d mutations (rng seed %u)\n", seeds.size(),
              mutations, kRngSeed);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view option = argc > 1 ? argv[1] : "";
  if (option == "--write-seeds" && argc == 3) return WriteSeeds(argv[2]);
  if (option == "--mutations" && argc == 3) return Replay(std::atoi(argv[2]));
  for (int i = 1; i < argc; ++i) Run(ReadAll(argv[i]));
  return argc > 1 ? 0 : Replay(4000);
}
