@0xa7d3c1f06b52e984;
# The contract between an LLM engine and the Knowledge Delivery Network.
#
# Bootstrap capability of a gateway connection (TCP, or a Unix socket for an
# engine on the same host): Kdn. A client
#   1. calls Kdn.hello and compares the golden vectors it gets with its own,
#   2. calls Session.open for each (tenant, model) it serves,
#   3. calls lookup / store / retrieve / pin ... on the Knowledge it got.
#
# Conventions, everywhere in this file
# - Every call answers with a Status; an exception means only that the transport
#   or the peer's implementation of this file broke. When status.code is not ok,
#   the other results are unset.
# - Every call ends by its deadline. deadlineMs counts from the moment the
#   gateway reads the request: 1 to 600000; 0 means 10000. Clocks are never
#   compared between hosts.
# - Sizes and offsets are bytes. Times to live are milliseconds.
# - Keys, placements and fingerprints are 32 bytes of SHA-256.
# - A request with a value that the gateway does not know is unimplemented: a
#   member of a union, an enumerant, a bit of a level mask. The gateway does
#   nothing of such a request.
# - A chunk is at most 4096 tokens; a call names at most NodeInfo.chunksPerCallMax
#   chunks; a message is at most NodeInfo.messageBytesMax bytes. More is
#   invalidArgument, or, for a message, the end of the connection.
# - Dropping a capability gives back what it stands for. A connection that breaks
#   drops all of its capabilities.
#
# How a key is made. A digest is SHA-256 of a byte string to which fields are
# added in order: an integer as 8 bytes little-endian; a double as the integer of
# its IEEE 754 bits; text and bytes as their length (8 bytes little-endian) and
# themselves; token ids as their count (8 bytes) and 4 bytes little-endian each.
#   model fingerprint: text "kdn-model-1", numLayers, numKvHeads, headDim, dtype,
#     rope.theta, rope.rotaryDim, rope.pairing, rope.scaling, rope.factor,
#     rope.lowFreqFactor, rope.highFreqFactor, rope.originalMaxPosition,
#     rope.betaFast, rope.betaSlow, rope.attentionFactor, weightsDigest,
#     tokenizerDigest (the name does not count; integers and enums as integers,
#     Float64 fields as doubles);
#   chunk key: text "kdn-chunk-1", bytes fingerprint, text namespace, bytes
#     condition (32 zero bytes when standalone), text variant, token ids.
# A prefix chain is cut into chunks of 256 tokens, the condition of each being the
# key of the one before it. The placement of a chunk is the key of the first chunk
# of its run of 16 consecutive chunks; a standalone chunk's placement is its key.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("kdn::rpc::wire");

const protocolVersion :UInt32 = 1;
# The newest version this file speaks. Fields and methods are only ever added
# within a version; anything else makes a new one.

# ---------------------------------------------------------------- errors

enum Code {
  # Numbered as absl::StatusCode and gRPC. What the caller should do:
  ok @0;
  cancelled @1;           # Nobody wanted it any more.
  unknown @2;
  invalidArgument @3;     # Fix the call.
  deadlineExceeded @4;    # Too late; a store may have been done all the same.
  notFound @5;            # A miss: recompute.
  alreadyExists @6;
  permissionDenied @7;
  resourceExhausted @8;   # Back off, then try again.
  failedPrecondition @9;  # Refresh: hello or open again; or the session is over;
                          # of a chunk: see ChunkOutcome.
  aborted @10;
  outOfRange @11;
  unimplemented @12;
  internal @13;           # A bug of the server.
  unavailable @14;        # Try another node.
  dataLoss @15;           # The copy was damaged and has been dropped.
  unauthenticated @16;
}

struct Status {
  code @0 :Code;
  message @1 :Text;  # For people: ids and numbers. Empty when ok.
}

# ---------------------------------------------------------------- hello

interface Kdn {
  hello @0 (protocolVersion :UInt32, clientName :Text,
            goldenVectors :List(GoldenVector))
      -> (status :Status, protocolVersion :UInt32, node :NodeInfo,
          goldenVectors :List(GoldenVector), session :Session);
  # `protocolVersion` is the newest the client speaks; the answer is the version
  # both will use. failedPrecondition when the server no longer speaks one that
  # old, or when a golden vector of the client differs from the server's own
  # (status.message names it; goldenVectors are set in this case too): such a
  # client hashes differently and would miss silently for ever. A client sends
  # every vector that it can compute, at least the one labelled "first-chunk",
  # else invalidArgument. Who has not said hello 10 s after connecting is hung up on. resourceExhausted when the gateway has its maximum of
  # sessions.
}

struct GoldenVector {
  # The key of a fixed identity. The model is {numLayers 2, numKvHeads 1, headDim
  # 64, dtype bf16, rope {theta 500000, rotaryDim 64, others default}, weights
  # digest "weights", tokenizer digest "tokenizer"}, the namespace "golden", the
  # tokens 0, 1, ..., 256 cut as a prefix chain.
  #   "model": the fingerprint; "first-chunk": the key of the first 256 tokens;
  #   "chained-chunk": the key of the last token behind them.
  label @0 :Text;
  key @1 :Data;
}

struct NodeInfo {
  id @0 :Text;
  software @1 :Text;
  chunksPerCallMax @2 :UInt32;
  messageBytesMax @3 :UInt64;
  memoryBytesMax @4 :UInt64;    # shared memory of one session, 0: not offered here
  storesInFlightMax @5 :UInt32; # open StoreStreams of one session
  storeBytesMax @6 :UInt64;     # raw KV of the open StoreStreams of one session
  features @7 :List(Text);
  # Names of what this node can do beyond protocol version 1. A client uses a
  # feature only when its name is here, and ignores names that it does not know.
  # docs/protocol.md lists the names.
}

interface Session {
  # One connected engine. Dropping it releases its pins and makes its Knowledge
  # and streams useless (failedPrecondition).

  open @0 (namespace :Text, model :ModelSpec, fingerprint :Data)
      -> (status :Status, knowledge :Knowledge, fingerprint :Data);
  # Registers the model and names the tenant. `fingerprint` is the client's own,
  # computed as said above; failedPrecondition when the server computes another
  # from `model` (stale or differing client; nothing would ever be found).
  # invalidArgument for a model or namespace that makes no sense.

  openMemory @1 (bytes :UInt64) -> (status :Status, memory :SharedMemory);
  # A region that gateway and engine both map. Only over a Unix socket;
  # failedPrecondition over TCP. resourceExhausted when the session's or the
  # gateway's budget is used up.

  info @2 () -> (status :Status, node :NodeInfo, session :UInt64);

  status @3 (deadlineMs :UInt32)
      -> (status :Status, nodes :List(NodeStatus), self :Text);
  # Every node of the cluster's configuration, the dead ones with alive = false.
}

interface SharedMemory {
  # A region whose memfd travels as this capability's file descriptor (C++:
  # getFd(); valid while the capability lives, so duplicate it). Map it shared.
  # The region goes back to the budget when the last reference is dropped and no
  # call uses it any more; an engine may keep its own mapping as long as it likes.
  size @0 () -> (bytes :UInt64);

  ticket @1 () -> (status :Status, socket :Text, ticket :Data);
  # For clients whose Cap'n Proto library cannot receive descriptors: connect to
  # the Unix socket at path `socket`, send the bytes of `ticket`, and receive one
  # byte with the descriptor attached (SCM_RIGHTS). A ticket works once, and no
  # longer than this capability; asking again makes the last one worthless.
}

# ---------------------------------------------------------------- the model

enum Dtype { bf16 @0; fp16 @1; fp32 @2; }
enum RopeScaling { none @0; linear @1; llama3 @2; yarn @3; }
enum RopePairing { neoX @0; gptJ @1; }

struct RopeSpec {
  # Everything that decides the rotation of K. Fields a scaling does not use keep
  # their defaults, because all of them count in the fingerprint.
  theta @0 :Float64 = 10000.0;
  rotaryDim @1 :UInt32;  # elements of a head that are rotated; 0: none
  pairing @2 :RopePairing;
  scaling @3 :RopeScaling;
  factor @4 :Float64 = 1.0;
  lowFreqFactor @5 :Float64 = 1.0;
  highFreqFactor @6 :Float64 = 4.0;
  originalMaxPosition @7 :UInt32;
  betaFast @8 :Float64 = 32.0;
  betaSlow @9 :Float64 = 1.0;
  attentionFactor @10 :Float64 = 1.0;
}

struct ModelSpec {
  name @0 :Text;       # for people
  numLayers @1 :UInt32;
  numKvHeads @2 :UInt32;
  headDim @3 :UInt32;
  dtype @4 :Dtype;     # of the KV cache in the engine
  rope @5 :RopeSpec;
  weightsDigest @6 :Text;
  tokenizerDigest @7 :Text;
}

# ---------------------------------------------------------------- tensors

struct Strides {
  # Byte strides of a KV tensor [layer][K|V][token][head][dim] whose dim elements
  # are contiguous, in the model's dtype, little-endian. With h = headDim x
  # sizeof(dtype), H heads and T tokens, densely packed:
  #   token-major (vLLM, C order):     head = h,     token = H*h, part = T*H*h
  #   head-major (DynamicCache):       token = h,    head = T*h,  part = T*H*h
  # and layer = 2*part in both. Padding is welcome, negative strides are not.
  layer @0 :UInt64;
  part @1 :UInt64;   # from K to V
  token @2 :UInt64;
  head @3 :UInt64;
}

enum Layout { tokenMajor @0; headMajor @1; }

struct Slice {
  # Half-open ranges of layers and KV heads: what one rank of a tensor- or
  # pipeline-parallel engine holds. All zero: the whole model.
  layerBegin @0 :UInt32;
  layerEnd @1 :UInt32;
  headBegin @2 :UInt32;
  headEnd @3 :UInt32;
}

struct ChunkRef {
  key @0 :Data;
  placement @1 :Data;  # empty: the key itself
}

# ---------------------------------------------------------------- knowledge

enum Durability {
  cache @0;       # acked once one owner has it in memory
  replicated @1;  # acked once R distinct nodes have it
  durable @2;     # acked once R nodes have it synced to disk
}

enum Level {
  lossless @0;  # the engine's own bytes
  int8 @1;      # 8 bits a value
  # Transform-coded, each finer than the one before, which it needs.
  base @2;
  base1 @3;     # people and APIs write "base+1"
  base2 @4;     # "base+2"
}
# A set of levels is a bit mask: bit i is the level numbered i. From the best
# down: lossless, int8, base2, base1, base.

enum Tier { memory @0; disk @1; }

interface Knowledge {
  # The chunks of one tenant and one model.

  lookup @0 (chunks :List(ChunkRef), deadlineMs :UInt32)
      -> (status :Status, results :List(LookupResult));
  # One result per chunk, in order.

  store @1 (request :StoreRequest, deadlineMs :UInt32)
      -> (status :Status, stream :StoreStream);
  # Begins one chunk. The deadline covers everything up to commit's answer.
  # invalidArgument when the key differs from the one the gateway computes.

  retrieve @2 (request :RetrieveRequest, sink :LayerSink, deadlineMs :UInt32)
      -> (status :Status, outcomes :List(ChunkOutcome));
  # Delivers chunks; one outcome each, in order. Answers after the last call to
  # `sink`. When the deadline passes, chunks not complete by then are failed with
  # deadlineExceeded. Cancelling the call stops the delivery. Once a call is
  # answered ok nothing more is written into its region: at the deadline the answer
  # waits for the layer that is being written. A region whose call was cancelled,
  # failed or got no answer may be written at any time: give it back.

  pin @3 (chunks :List(ChunkRef), ttlMs :UInt64, deadlineMs :UInt32)
      -> (status :Status, statuses :List(Status));
  # Holds every copy against eviction for ttlMs (1 ms to 30 days) or until the
  # session ends, or its node does: pin again after a restart. Pinning again extends. notFound where nobody has the chunk.

  unpin @4 (chunks :List(ChunkRef), deadlineMs :UInt32)
      -> (status :Status, statuses :List(Status));

  remove @5 (chunks :List(ChunkRef), deadlineMs :UInt32)
      -> (status :Status, statuses :List(Status));
  # ok: no copy is left, nor comes back when a node is started again. notFound: no
  # node had one. failedPrecondition for a chunk that another session pins.
  # unavailable: the copies that could be reached are removed, but a node that is
  # away may hold one, or a disk failed; remove it again later.
}

struct LookupResult {
  hit @0 :Bool;
  node @1 :Text;
  tier @2 :Tier;
  levels @3 :UInt8;    # all that it can be delivered at
  bytes @4 :UInt64;    # of the encoded object
  version @5 :UInt64;  # equal versions are equal bytes
}

struct StoreRequest {
  key @0 :Data;          # as the client computes it
  condition @1 :Data;    # key of the chunk before it; empty: standalone
  variant @2 :Text;      # empty: "raw"
  tokens @3 :List(Int32);
  placement @4 :Data;    # empty: the key itself
  positions @5 :List(Int32);
  # Where each token stood when its KV was computed; one per token, none negative.
  levels @6 :UInt8;
  # The qualities to keep; 0: lossless. base1 keeps base too, base2 both. The
  # transform-coded ones take a headDim of 256 at most: else invalidArgument.
  durability @7 :Durability = replicated;
  ttlMs @8 :UInt64;      # not evicted before; 0: no promise; at most 30 days.
  # Like a pin, each copy is held by the run of the node that has it: a node that is
  # started again keeps its copies on disk, but may evict them.
  memory @9 :SharedMemory;
  # Where the layers lie; null: they come inline.
  depth @10 :UInt32;
  # The number of chunks before this one in its chain; 0 for a standalone chunk, and
  # only for such: else invalidArgument.
}

interface StoreStream {
  # One chunk on its way in. Dropping it before commit abandons it: nothing ever
  # becomes visible.

  layer @0 (bytes :Data, offset :UInt64, strides :Strides) -> ();
  # The next layer, all KV heads: K after RoPE, as the engine holds it, and V.
  # `strides` (layer does not matter) describe the tensor inside `bytes` from byte
  # `offset` on, or inside the store's memory when there is one; the memory must
  # stay as it is until commit answers. Answered once the layer has been
  # encoded, four at a time: keep some calls unanswered for throughput, not all of
  # them (what is unanswered counts against the connection, see docs/protocol.md).
  # Carries no status: commit reports the first error. Cancelling a call spoils the
  # store.

  commit @1 () -> (status :Status, receipt :StoreReceipt);
  # After all numLayers layers, once; it need not wait for their answers, only for
  # their order. It ends the store, whatever it answers: layers behind it have no
  # part in it. invalidArgument when layers are missing.
  # deadlineExceeded or unavailable when too few nodes acked; a retry is safe.
}

struct StoreReceipt {
  key @0 :Data;
  version @1 :UInt64;
  existed @2 :Bool;   # an earlier object of this key won; nothing changed
  bytes @3 :UInt64;   # of one encoded copy
  holders @4 :List(Text);
}

struct RetrieveRequest {
  chunks @0 :List(Chunk);
  slice @1 :Slice;
  accept @2 :UInt8;
  # Levels; the best one of them is delivered that is held and that the links
  # between nodes carry in half the time there is, layer by layer; 0: all. Accepting base2 does
  # not accept base.
  destination :union {
    inline @3 :Layout;
    # Each layer comes through sink.data, densely packed: K then V.
    memory @4 :SharedMemory;
    # Each chunk is written into this region at its offset and strides. sink may
    # be null, else it hears of each layer through sink.ready.
  }

  prefillTokensPerSecond @5 :Float64;
  # Of the engine. Where loading or decoding a chunk would take longer a lower accepted
  # level comes, or its outcome is recompute; 0: unknown, then it is only where the
  # link cannot carry it by the deadline.
  leadingChunks @6 :Bool;
  # The engine has no use for a chunk behind one that it recomputes: each node gives
  # up chunks from the end of those that it sends together.

  struct Chunk {
    ref @0 :ChunkRef;
    positions @1 :List(Int32);
    # Where the engine wants each token; one per token of the chunk. K comes
    # rotated to these.
    offset @2 :UInt64;
    strides @3 :Strides;  # layer 0 and head 0 are the slice's first
  }
}

interface LayerSink {
  # Implemented by the client. `layer` counts from the slice's first; the layers
  # of one chunk come in order. What came of a chunk whose outcome is not a hit
  # must not be used.
  data @0 (chunk :UInt32, layer :UInt32, bytes :Data) -> stream;
  # An engine that takes none for 10 s ends the retrieve (unavailable): others wait
  # for the memory that it holds.
  ready @1 (layers :List(LayerRef)) -> stream;
  # These are complete and verified in shared memory.
  done @2 ();
  # The last call: what came before has arrived once this is answered.
}

struct LayerRef {
  chunk @0 :UInt32;
  layer @1 :UInt32;
}

enum OutcomeKind { hit @0; miss @1; failed @2; recompute @3; }

struct ChunkOutcome {
  # A miss is nobody's fault: recompute. A failure says why; recompute as well.
  # recompute: it is held, but that is faster, or all that there is time for.
  # failedPrecondition is one of the node's: it has not got the calibration that
  # the chunk was coded with, or met two versions of it. Another node may do.
  kind @0 :OutcomeKind;
  why @1 :Status;        # failed only
  level @2 :Level;       # the least exact of its layers
  source @3 :Text;       # the node it came from
  tier @4 :Tier;
  version @5 :UInt64;
  wireBytes @6 :UInt64;  # that crossed between nodes for it
}

# ---------------------------------------------------------------- status

struct NodeStatus {
  id @0 :Text;
  gatewayAddress @1 :Text;
  alive @2 :Bool;
  metrics @3 :List(Metric);
  # Every metric that the node of the gateway knows, and what newer nodes report
  # besides. All are 0 when the node is not alive. `kdn status --explain` prints
  # names, units and meanings; docs/operations.md has them too. Show a metric of an
  # unknown name as it is: a newer node has more of them.
}

enum MetricType {
  counter @0;    # grows only, from the start of the node
  gauge @1;      # holds now
  histogram @2;  # a distribution since the start of the node
}

struct Metric {
  name @0 :Text;
  type @1 :MetricType;
  value @2 :UInt64;            # of a histogram: the sum of its values
  buckets @3 :List(Bucket);    # of a histogram: those that are not empty
  struct Bucket {
    # Values that are greater than the atMost of the bucket before and at most
    # this one. The range of a bucket is at most an eighth of its smallest value.
    atMost @0 :UInt64;
    count @1 :UInt64;
  }
}
