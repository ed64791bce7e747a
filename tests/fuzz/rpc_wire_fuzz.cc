// Reads any bytes as each structure that a peer or an engine may send.

#include <capnp/serialize.h>

#include <cstring>

#include "kv/calibration_id.h"
#include "kv/check.h"
#include "rpc/peer.capnp.h"
#include "rpc/wire.h"
#include "tests/fuzz/fuzz_target.h"

namespace kdn::rpc {
namespace {

void CheckTyped(const absl::Status& status) {
  KDN_CHECK(status.ok() || absl::IsInvalidArgument(status) ||
                absl::IsUnimplemented(status),
            "a value out of bounds is INVALID_ARGUMENT, an unknown one "
            "UNIMPLEMENTED");
}

void ReadModel(capnp::MessageReader& message) {
  const auto model = FromWire(message.getRoot<wire::ModelSpec>());
  CheckTyped(model.status());
  if (!model.ok()) return;
  capnp::MallocMessageBuilder again;
  ToWire(*model, again.initRoot<wire::ModelSpec>());
  const auto same = FromWire(again.getRoot<wire::ModelSpec>().asReader());
  KDN_CHECK(same.ok() && FingerprintOf(*same) == FingerprintOf(*model),
            "a model survives the wire");
}

void ReadRef(capnp::MessageReader& message) {
  CheckTyped(FromWire(message.getRoot<wire::ChunkRef>()).status());
}

void ReadSlice(capnp::MessageReader& message) {
  ModelSpec model;
  model.num_layers = 4;
  model.num_kv_heads = 2;
  const auto slice = FromWire(message.getRoot<wire::Slice>(), model);
  CheckTyped(slice.status());
  KDN_CHECK(!slice.ok() || Validate(*slice, model).ok(),
            "an accepted slice is inside the model");
}

void ReadStrides(capnp::MessageReader& message) {
  const KvStrides strides = FromWire(message.getRoot<wire::Strides>());
  const KvShape shape{4, 2, 16, 8, Dtype::kBf16};
  if (!ValidateInside(shape, strides, 0, 1u << 20).ok()) return;
  KDN_CHECK(strides.layer >= 0 && 3 * strides.layer < (1 << 20),
            "an accepted tensor is inside the memory");
}

void ReadStatus(capnp::MessageReader& message) {
  FromWire(message.getRoot<wire::Status>()).ToString();
}

void ReadRequest(capnp::MessageReader& message) {
  const auto request = message.getRoot<peer::Request>();
  if (request.isCalibration()) {
    const auto id = request.getCalibration().getId();
    DigestFromWire<CalibrationId>(id, "id").status().IgnoreError();
  }
  if (!request.isFetch()) return;
  for (const auto chunk : request.getFetch().getChunks()) {
    DigestFromWire<ChunkKey>(chunk.getKey(), "key").status().IgnoreError();
  }
}

constexpr void (*kReaders[])(capnp::MessageReader&) = {
    ReadModel, ReadRef, ReadSlice, ReadStrides, ReadStatus, ReadRequest};

}  // namespace
}  // namespace kdn::rpc

// The first byte chooses the structure.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size <= sizeof(capnp::word)) return 0;
  std::vector<capnp::word> words((size - 1) / sizeof(capnp::word));
  std::memcpy(words.data(), data + 1, words.size() * sizeof(capnp::word));
  // KJ throws on malformed messages; in the program, the event loop catches.
  try {
    capnp::FlatArrayMessageReader message(
        kj::arrayPtr(words.data(), words.size()));
    kdn::rpc::kReaders[data[0] % std::size(kdn::rpc::kReaders)](message);
  } catch (const kj::Exception&) {
  }
  return 0;
}

namespace kdn::fuzz {
namespace {

template <typename Fill>
std::string Seed(char reader, Fill fill) {
  capnp::MallocMessageBuilder message;
  fill(message);
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  return reader + std::string(reinterpret_cast<const char*>(bytes.begin()),
                              bytes.size());
}

}  // namespace

std::vector<std::string> Seeds() {
  ModelSpec model;
  model.name = "fuzz";
  model.num_layers = 4;
  model.num_kv_heads = 2;
  model.head_dim = 8;
  model.rope.rotary_dim = 8;
  std::vector<std::string> seeds;
  for (std::string seed :
       {Seed('\0',
             [&](auto& m) {
               rpc::ToWire(model, m.template initRoot<rpc::wire::ModelSpec>());
             }),
        Seed('\1',
             [](auto& m) {
               rpc::ToWire(ChunkRef{},
                           m.template initRoot<rpc::wire::ChunkRef>());
             }),
        Seed('\2',
             [](auto& m) {
               rpc::ToWire(KvSlice{0, 4, 0, 2},
                           m.template initRoot<rpc::wire::Slice>());
             }),
        Seed('\3',
             [](auto& m) {
               rpc::ToWire(KvStrides{512, 256, 16, 8},
                           m.template initRoot<rpc::wire::Strides>());
             }),
        Seed('\4',
             [](auto& m) {
               rpc::ToWire(absl::NotFoundError("no"),
                           m.template initRoot<rpc::wire::Status>());
             }),
        Seed('\5',
             [](auto& m) {
               m.template initRoot<rpc::peer::Request>()
                   .initCalibration()
                   .initId(32);
             }),
        Seed('\5', [](auto& m) {
          auto fetch = m.template initRoot<rpc::peer::Request>().initFetch();
          fetch.setNamespace("t");
          fetch.initChunks(2);
        })}) {
    seeds.push_back(std::move(seed));
  }
  return seeds;
}

}  // namespace kdn::fuzz
