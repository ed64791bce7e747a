#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "bench/delivery_bench.h"
#include "cli/commands.h"

namespace kdn::cli {

void AddBenchCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "bench", "Measure this build on this machine, next to its raw limits");
  command->require_subcommand(1);
  CLI::App* delivery = command->add_subcommand(
      "delivery",
      "Delivery, lookup, disk and store rates of two nodes of its own\n\n"
      "  kdn bench delivery --json delivery.json\n"
      "  kdn bench delivery remote lookup     # these parts only\n\n"
      "Prints one JSON object; every rate stands next to the raw limit "
      "measured in turns with it (memcpy, TCP over loopback, the disk's own "
      "speed).");
  auto options = std::make_shared<bench::DeliveryOptions>();
  options->program = program.path;
  delivery
      ->add_option("part", options->parts,
                   "what to measure (default: everything)")
      ->check(CLI::IsMember(std::vector<std::string>(
          std::begin(bench::kDeliveryParts), std::end(bench::kDeliveryParts))));
  delivery->add_option("--json", options->json, "file for the JSON object");
  delivery
      ->add_option("--directory", options->directory,
                   "where the disk is measured")
      ->capture_default_str();
  delivery
      ->add_option("--corpus-gb", options->corpus_gb,
                   "size of the corpus stored through a small memory tier")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  delivery->callback([&program, options] {
    program.exit_code = Report(bench::RunDeliveryBench(*options));
  });
}

}  // namespace kdn::cli
