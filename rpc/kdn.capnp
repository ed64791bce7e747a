@0xa7d3c1f06b52e984;
# The contract between an LLM engine and the Knowledge Delivery Network.
#
# The bootstrap capability of a gateway connection is Kdn. The connection is TCP, or
# a Unix socket for an engine on the same host. A client
#   1. calls Kdn.hello and compares the golden vectors in the answer with its own,
#   2. calls Session.open for each (tenant, model) that it serves,
#   3. calls lookup, store, retrieve, pin ... on the Knowledge that it got.
#
# Conventions of this file
# - Every call answers with a Status; the exceptions to this rule say so. When
#   status.code is not ok, the other results are unset, unless a comment says
#   otherwise. An exception means only that the transport, or the other side's
#   implementation of this file, is broken.
# - Every call with a deadlineMs ends by its deadline. The time counts from the
#   moment when the gateway reads the request: 1 to 600000 ms; 0 means 10000. Clocks
#   of different hosts are never compared.
# - Sizes and offsets are bytes. Times to live are milliseconds.
# - Keys, placements and fingerprints are 32 bytes: a SHA-256.
# - A gateway answers unimplemented to a request with a value that it does not know:
#   a member of a union, an enumerant, a bit of a level mask. It does no part of
#   such a request.
# - A chunk has at most 4096 tokens, and a call names at most
#   NodeInfo.chunksPerCallMax chunks: more is invalidArgument. A message has at most
#   64 KiB before the answer to hello, and then NodeInfo.messageBytesMax bytes: a
#   larger one ends the connection.
# - Dropping a capability gives back what it stands for. When a connection breaks,
#   all of its capabilities are dropped.
#
# How keys are computed. A digest is the SHA-256 of a byte string. Fields are appended
# to the string in the order given:
#   integer      8 bytes, little-endian; an enum is its number
#   double       the integer of its IEEE 754 bits
#   text, bytes  the length as an integer, then the bytes
#   token ids    their count as an integer, then 4 bytes per id, little-endian
# The model fingerprint is the digest of
#   text "kdn-model-1", numLayers, numKvHeads, headDim, dtype, rope.theta,
#   rope.rotaryDim, rope.pairing, rope.scaling, rope.factor, rope.lowFreqFactor,
#   rope.highFreqFactor, rope.originalMaxPosition, rope.betaFast, rope.betaSlow,
#   rope.attentionFactor, weightsDigest, tokenizerDigest.
#   Float64 fields are doubles. The name of the model does not count.
# The chunk key is the digest of
#   text "kdn-chunk-1", bytes fingerprint, text namespace, bytes condition (32 zero
#   bytes for a standalone chunk), text variant, token ids;
#   but unless the chunk's depth is a multiple of 16, its first 8 bytes are those of
#   the condition.
# The weightsDigest of a Hugging Face checkpoint is, in hex digits, the digest of
#   text "kdn-checkpoint-1", text weights, text config.
# weights is, in hex digits, the digest of text "kdn-weights-1" and, for each safetensors
# file in the order of the names, bytes: the SHA-256 of the file. config is, in hex
# digits, the digest of text "kdn-config-1", text model_type, and a value: an object with
# the fields of config.json that count. A value begins with the text of its kind:
#   "null"
#   "bool", an integer: 0 or 1
#   "number", a double: an integer and the equal fraction are one value
#   "text", a text
#   "list", an integer: the number of values, the values
#   "object", an integer: the number of fields, then text name and value of each field,
#   sorted by the bytes of the names
# All fields count, known or unknown, except
#   - those that model/config_digest.cc lists as ignored, and those that begin with "_"
#   - fields that are null, and fields with the value that a config may leave out (in the
#     same file)
#   - sliding_window, use_sliding_window, max_window_layers where no layer slides
# The fields of rope_scaling and rope_parameters that RopeSpec does not have count under
# the name "rope." and their own.
# The tokenizerDigest is, in hex digits, the digest of text "kdn-tokenizer-1" and, if
# there is a tokenizer.json, bytes: the file.
# A prefix chain is a text that is cut into chunks of 256 tokens; the last chunk may
# have fewer. The condition of each chunk is the key of the chunk before it; the first
# chunk is standalone. The depth of a chunk is the number of chunks before it. So each
# 16 consecutive chunks of a chain begin with the same 8 bytes, which decide which
# nodes own them.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("kdn::rpc::wire");

const protocolVersion :UInt32 = 2;
# The newest version that this file describes. Within a version, fields and methods
# are only added. Any other change makes a new version.

# ---------------------------------------------------------------- errors

enum Code {
  # The numbers are those of absl::StatusCode and gRPC. What the caller should do:
  ok @0;
  cancelled @1;           # The caller went away or cancelled the call.
  unknown @2;
  invalidArgument @3;     # Fix the call.
  deadlineExceeded @4;    # It took too long. A store may still have been done.
  notFound @5;            # A miss: compute the KV.
  alreadyExists @6;
  permissionDenied @7;
  resourceExhausted @8;   # Wait, then try again.
  failedPrecondition @9;  # The state does not allow the call, and the message says
                          # why. Usually the session is over or client and gateway
                          # differ: say hello or open again. Of a chunk: see
                          # ChunkOutcome. Of remove: the chunk is pinned.
  aborted @10;
  outOfRange @11;
  unimplemented @12;      # The server does not know the call or a value in it. Of a
                          # chunk: see ChunkOutcome. Of a store: too few owners read
                          # the object's format; update those nodes.
  internal @13;           # A bug of the server.
  unavailable @14;        # Try another node.
  dataLoss @15;           # A copy is damaged: compute the KV.
  unauthenticated @16;
}

struct Status {
  code @0 :Code;
  message @1 :Text;  # For people: says what is wrong, with ids and numbers. Empty
                     # when the code is ok.
}

# ---------------------------------------------------------------- hello

interface Kdn {
  hello @0 (protocolVersion :UInt32, clientName :Text,
            goldenVectors :List(GoldenVector))
      -> (status :Status, protocolVersion :UInt32, node :NodeInfo,
          goldenVectors :List(GoldenVector), session :Session);
  # The first call of a connection. The gateway hangs up on a client that has not
  # said hello 10 s after it connected. A connection has one session at a time:
  # failedPrecondition while the Session of an earlier hello lives.
  #   protocolVersion  the newest version that the client speaks. In the answer: the
  #                    version that both sides use from here on.
  #   clientName       names the client in the node's log.
  #   goldenVectors    every golden vector that the client can compute, at least the
  #                    one labelled "first-chunk", else invalidArgument. In the
  #                    answer: those of the gateway.
  # failedPrecondition when the gateway does not speak so old a version, or when a
  # golden vector of the client differs from the gateway's. Then protocolVersion and
  # goldenVectors of the answer are set too, and status.message names the version or
  # the vector. A client with another vector computes other keys than the gateway, and
  # would never find a chunk.
  # resourceExhausted when the gateway has its maximum of sessions. Then a client that
  # has opened no Knowledge and no SharedMemory makes room, and is disconnected.
}

struct GoldenVector {
  # A key that both sides compute from fixed values. The model is {numLayers 2,
  # numKvHeads 1, headDim 64, dtype bf16, rope {theta 500000, rotaryDim 64, the other
  # fields at their defaults}, weightsDigest "weights", tokenizerDigest "tokenizer"}.
  # The namespace is "golden", the variant "raw". The tokens are 0, 1, ..., 256, cut
  # into a prefix chain of two chunks.
  label @0 :Text;
  # "model": the model's fingerprint. "first-chunk": the key of the first chunk, which
  # has 256 tokens. "chained-chunk": the key of the second chunk, which has one token.
  # The gateway ignores other labels.
  key @1 :Data;
}

struct NodeInfo {
  id @0 :Text;
  software @1 :Text;
  chunksPerCallMax @2 :UInt32;
  messageBytesMax @3 :UInt64;
  memoryBytesMax @4 :UInt64;    # Shared memory of one session. 0: none over this
                                # connection.
  storesInFlightMax @5 :UInt32; # Open StoreStreams of one session.
  storeBytesMax @6 :UInt64;     # Raw KV of the open StoreStreams of one session.
  features @7 :List(Text);
  # Names of what this node can do beyond protocol version 1. A client uses a
  # feature only when its name is here, and ignores names that it does not know.
  # docs/protocol.md lists the names.
}

interface Session {
  # One connected engine. Dropping the session releases its pins. After that, calls
  # on its Knowledge and StoreStreams answer failedPrecondition.

  open @0 (namespace :Text, model :ModelSpec, fingerprint :Data)
      -> (status :Status, knowledge :Knowledge, fingerprint :Data);
  # Registers the model and names the tenant. `fingerprint` is the client's
  # fingerprint of the model; in the answer it is the gateway's, also when the two
  # differ. failedPrecondition when they differ: the client describes the model in
  # another way than it computes keys, and would never find a chunk. invalidArgument
  # for a model or a namespace that is not valid. A namespace has 1 to 128 characters
  # of A-Z a-z 0-9 . _ -
  # resourceExhausted when the session has too many Knowledge capabilities open.

  openMemory @1 (bytes :UInt64) -> (status :Status, memory :SharedMemory);
  # A memory region that gateway and engine both map. Only over a Unix socket:
  # failedPrecondition over TCP. resourceExhausted when the budget of the session or
  # of the gateway is used up, or when the session has too many regions. A call on a
  # Knowledge of this session may name the region; any other SharedMemory is
  # invalidArgument.

  info @2 () -> (status :Status, node :NodeInfo, session :UInt64);
  # The gateway's node and the number of this session.

  status @3 (deadlineMs :UInt32)
      -> (status :Status, nodes :List(NodeStatus), self :Text);
  # Every node of the cluster's configuration; `alive` is false for a node that is
  # down. `self` is the id of the gateway's node.

  # The calls below need a node with the feature "calibrations" (docs/protocol.md).

  storeCalibration @4 (bytes :UInt64, deadlineMs :UInt32)
      -> (status :Status, upload :CalibrationUpload);
  # Begins to store the file of a calibration, which has so many bytes
  # (docs/formats.md, "Calibrations"). The deadline covers everything up to the answer
  # of commit. resourceExhausted when the session has another upload open, when the
  # gateway has too many bytes of uploads, or when the file is too large.

  calibrations @5 (model :Data, deadlineMs :UInt32)
      -> (status :Status, calibrations :List(Calibration));
  # The calibrations that the gateway's node has: those of the model with this
  # fingerprint, or all of them if `model` is empty. Of the calibrations of one model,
  # the first codes new chunks.
}

struct Calibration {
  id @0 :Data;        # The SHA-256 of the file.
  model @1 :Data;     # The fingerprint of its model.
  createdS @2 :UInt64;  # When it was made, in seconds since 1970. 0: not known.
  bytes @3 :UInt64;
  nodes @4 :List(Text);  # The live nodes that have it.
}

interface CalibrationUpload {
  # A calibration on its way to the gateway. Dropping it before commit ends the upload,
  # and nothing is stored.

  part @0 (bytes :Data) -> (status :Status);
  # The next bytes of the file, at most 8 MiB.

  commit @1 () -> (status :Status, id :Data, nodes :List(Text));
  # Stores the calibration, once all of its bytes have come. `nodes` are the live nodes
  # that have it. ok when every live node has it, or at the deadline when as many nodes
  # have it as have copies of a chunk. Storing a calibration again is safe.
  #   dataLoss, invalidArgument  the bytes are not a calibration; nothing is changed
  #   resourceExhausted          the node keeps no more calibrations; nothing is changed
  #   unavailable                too few nodes have it by the deadline. The nodes that
  #                              have it hand it on all the same
}

interface SharedMemory {
  # A shared region. Its memfd travels as the file descriptor of this capability (in
  # C++: getFd(), valid while the capability lives, so duplicate it). Map it shared.
  # The region goes back to the budget when the last reference to the capability is
  # dropped and no call uses the region any more. An engine may keep its mapping for
  # longer.
  size @0 () -> (bytes :UInt64);
  # Carries no status.

  ticket @1 () -> (status :Status, socket :Text, ticket :Data);
  # For clients whose Cap'n Proto library cannot receive file descriptors. Connect to
  # the Unix socket whose path is that of the gateway's own socket with ".fd" behind it,
  # send the bytes of `ticket`, and receive one byte with the descriptor attached
  # (SCM_RIGHTS). `socket` is the same path as the node sees it. A ticket works once,
  # while this capability lives, and only until the next ticket is asked for.
}

# ---------------------------------------------------------------- the model

enum Dtype { bf16 @0; fp16 @1; fp32 @2; }
enum RopeScaling { none @0; linear @1; llama3 @2; yarn @3; }
enum RopePairing { neoX @0; gptJ @1; }

struct RopeSpec {
  # Everything that decides the rotation of K. The fields mean what they mean in the
  # config of a Hugging Face model. Fields that the scaling does not use keep their
  # defaults, because all fields count in the fingerprint.
  theta @0 :Float64 = 10000.0;  # Above 1.
  rotaryDim @1 :UInt32;
  # Elements of a head that are rotated: an even number, at most headDim. 0: none.
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
  # Each text has at most 256 bytes.
  name @0 :Text;          # For people.
  numLayers @1 :UInt32;   # 1 to 1024.
  numKvHeads @2 :UInt32;  # 1 to 1024.
  headDim @3 :UInt32;     # 1 to 4096.
  dtype @4 :Dtype;        # Of the KV cache in the engine.
  rope @5 :RopeSpec;
  weightsDigest @6 :Text;
  # Any text that changes when the weights change, or when the model computes otherwise
  # with the same weights. Engines that shall find each other's chunks use the same
  # text. For a Hugging Face checkpoint this is the checkpoint's digest: see the head of
  # this file.
  tokenizerDigest @7 :Text;
  # The same of the tokenizer.
}

# ---------------------------------------------------------------- tensors

struct Strides {
  # Byte strides of a KV tensor [layer][K|V][token][head][dim]. The elements of `dim`
  # are contiguous, in the model's dtype, little-endian. For H heads, T tokens and
  # h = headDim x sizeof(dtype), the densely packed layouts are:
  #   token-major (vLLM, C order):     head = h,     token = H*h, part = T*H*h
  #   head-major (DynamicCache):       token = h,    head = T*h,  part = T*H*h
  # In both, layer = 2*part. Strides may be larger than that (padding). A stride
  # above 2^63 - 1 is invalidArgument.
  layer @0 :UInt64;
  part @1 :UInt64;   # From K to V.
  token @2 :UInt64;
  head @3 :UInt64;
}

enum Layout { tokenMajor @0; headMajor @1; }

struct Slice {
  # Half-open ranges of layers and KV heads, for instance those of one rank of a
  # tensor- or pipeline-parallel engine. All four 0: the whole model.
  layerBegin @0 :UInt32;
  layerEnd @1 :UInt32;
  headBegin @2 :UInt32;
  headEnd @3 :UInt32;
}

struct ChunkRef {
  key @0 :Data;
  placement @1 :Data;  # Not read. Version 1 of the protocol needed it.
}

# ---------------------------------------------------------------- knowledge

enum Durability {
  # When a store is acknowledged. R is the number of replicas of the cluster, or the
  # number of its nodes if that is less.
  cache @0;       # One owner has the chunk in memory.
  replicated @1;  # R nodes have it in memory.
  durable @2;     # R nodes have it synced to disk.
}

enum Level {
  # A quality at which a chunk is stored and delivered. A set of levels is a bit mask:
  # bit i is the level with the number i. From the most exact level down: lossless,
  # int8, base2, base1, base, archive.
  lossless @0;  # The engine's own bytes.
  int8 @1;      # 8 bits per value.
  # The transform-coded levels. base1 refines base, and base2 refines base1: a level
  # is decoded together with the levels that it refines.
  base @2;
  base1 @3;     # Written "base+1" for people and in APIs.
  base2 @4;     # Written "base+2".
  # Transform-coded in larger steps than base, and not refined. A node stores it only if
  # it has a calibration of the model: else failedPrecondition.
  archive @5;
}

enum Tier { memory @0; disk @1; }

interface Knowledge {
  # The chunks of one tenant and one model.

  lookup @0 (chunks :List(ChunkRef), deadlineMs :UInt32)
      -> (status :Status, results :List(LookupResult));
  # One result per chunk, in order. An owner that does not answer in time counts as
  # a miss.

  store @1 (request :StoreRequest, deadlineMs :UInt32)
      -> (status :Status, stream :StoreStream);
  # Begins to store one chunk. The deadline covers everything up to the answer of
  # commit. invalidArgument when the gateway computes another key. resourceExhausted
  # when the session has storesInFlightMax streams or storeBytesMax bytes open
  # (NodeInfo), or when the node has no memory for the chunk.

  retrieve @2 (request :RetrieveRequest, sink :LayerSink, deadlineMs :UInt32)
      -> (status :Status, outcomes :List(ChunkOutcome));
  # Delivers chunks. One outcome per chunk, in order. The answer comes after the last
  # call to `sink`. At the deadline, every chunk that is not complete fails with
  # deadlineExceeded. Cancelling the call stops the delivery.
  #
  # Into a shared region: once the call has answered ok, nothing more is written into
  # the region. So at the deadline the answer waits until the layer that is being
  # written is complete. After a call that was cancelled, failed or got no answer, the
  # node may still write into the region: drop the region and do not use it again.

  pin @3 (chunks :List(ChunkRef), ttlMs :UInt64, deadlineMs :UInt32)
      -> (status :Status, statuses :List(Status));
  # Asks every node that has a copy of a chunk not to evict the copy for ttlMs (1 ms
  # to 30 days), or until the session ends. Pinning a chunk again replaces the time. A
  # node forgets its pins when it stops: pin again when it has started again. One
  # status per chunk, in order:
  #   ok                 at least one copy is pinned. A copy that is only on disk
  #                      counts once the disk has confirmed that it keeps the copy
  #   notFound           no node has the chunk
  #   resourceExhausted  no copy is pinned: too many pins at the nodes with a copy
  #   unavailable        no copy is pinned: a node that may have one does not answer
  # With any other code, no copy is pinned either.

  unpin @4 (chunks :List(ChunkRef), deadlineMs :UInt32)
      -> (status :Status, statuses :List(Status));
  # Ends the session's pins of these chunks. One status per chunk, in order: notFound
  # when the session has not pinned the chunk.

  remove @5 (chunks :List(ChunkRef), deadlineMs :UInt32)
      -> (status :Status, statuses :List(Status));
  # Removes every copy. One status per chunk, in order:
  #   ok                  no copy is left, and none comes back when a node restarts
  #   notFound            no node had a copy
  #   failedPrecondition  another session has pinned the chunk
  #   unavailable         the copies within reach are removed, but a node that is down
  #                       may hold a copy, or a disk failed: remove again later

  calibrate @6 (deadlineMs :UInt32) -> (status :Status, run :CalibrationRun);
  # Begins to make a calibration of this model from KV that the engine has computed.
  # Needs a node with the feature "calibration-runs". The deadline covers everything up
  # to the answer of finish. resourceExhausted when the node makes another calibration;
  # invalidArgument when base, base1 and base2 cannot code KV of this model.
}

interface CalibrationRun {
  # A calibration in the making. Dropping it before finish gives it up.

  add @0 (bytes :Data, strides :Strides, positions :List(Int32),
          importance :List(Float64))
      -> (status :Status, tokens :UInt32, tokensMin :UInt32);
  # Adds the KV of a run of tokens, of all layers: K rotated to `positions`, as the
  # engine holds it, and V. `strides` describes the tensor, which begins at the first
  # byte. `tokens` is the number of tokens so far; finish needs tokensMin. Calls are
  # worked off one after the other.
  #   importance  what a squared error in a token's K and V costs, at least 0,
  #               [layer][KV head][token]. Empty: not known. If it is not known for some
  #               thousand tokens, all tokens are coded alike, which gives larger errors.
  # Nodes of older versions do not read it.

  finish @1 (baseBits :Float64 = 1.5, weights :List(Float64))
      -> (status :Status, id :Data, nodes :List(Text));
  # Makes the calibration and stores it in the cluster, as CalibrationUpload.commit does.
  #   baseBits  bits per value that the level base should take
  #   weights   the weight of a squared error in a head's K or V, [layer][K|V][KV head],
  #             all above 0. Empty: all are equal, which gives much larger errors.
  # invalidArgument for too few tokens or wrong weights.
}

struct LookupResult {
  hit @0 :Bool;        # False: no node has the chunk, and the other fields are unset.
  node @1 :Text;       # A node that has the chunk.
  tier @2 :Tier;       # Where that node has it.
  levels @3 :UInt8;    # The set of levels at which it can be delivered.
  bytes @4 :UInt64;    # Of the encoded object.
  version @5 :UInt64;  # Copies with equal versions have equal bytes.
}

struct StoreRequest {
  key @0 :Data;          # The key that the client computes.
  condition @1 :Data;    # The key of the chunk before it. Empty: a standalone chunk.
  variant @2 :Text;      # Empty: "raw". The characters are those of a namespace.
  tokens @3 :List(Int32);  # Token ids: 1 to 4096, none negative.
  placement @4 :Data;    # Not read, as in ChunkRef.
  positions @5 :List(Int32);
  # The position of each token when its KV was computed: one per token, none negative.
  levels @6 :UInt8;
  # The set of levels to keep; 0: lossless. The levels that these refine are kept too.
  # base, base1 and base2 take a headDim of at most 256: else invalidArgument.
  durability @7 :Durability = replicated;
  ttlMs @8 :UInt64;
  # The copies are not evicted for this time. At most 30 days; 0: they may be evicted
  # at once. A copy on disk keeps its time when its node starts again.
  memory @9 :SharedMemory;
  # The region in which the layers lie. Null: the layers come in the messages.
  depth @10 :UInt32;
  # The number of chunks before this one in its chain. 0 for a standalone chunk, and
  # at least 1 for every other chunk: else invalidArgument.
}

interface StoreStream {
  # A store in progress. Dropping the stream before commit abandons the store: the
  # chunk never becomes visible.

  layer @0 (bytes :Data, offset :UInt64, strides :Strides, count :UInt32 = 1) -> ();
  # The next `count` layers with all KV heads: K after RoPE, as the engine holds it,
  # and V. `strides` describes the tensor, which begins at byte `offset` of `bytes`, or
  # of the store's region if there is one. strides.layer is ignored if count is 1. In
  # a region, the layers must not change until commit has answered. Only a node with
  # the feature "layers-per-call" (docs/protocol.md) takes a count other than 1.
  #
  # Carries no status: commit reports the first error of a store. A call is answered
  # when its layers have been encoded. The node encodes at most four runs of layers of
  # a store at a time; a run has about 1 MiB of KV, or one layer.
  # For throughput, send some layers before the earlier ones are answered, but not
  # all: the bytes of unanswered calls count against the connection (docs/protocol.md,
  # "Budgets"). Cancelling a layer call makes commit fail.

  commit @1 () -> (status :Status, receipt :StoreReceipt);
  # Completes the store: once, after all numLayers layers. It may be sent before the
  # layers are answered, but not before they are sent. Commit ends the store, whatever
  # it answers: a layer that is sent after it has no effect. invalidArgument when
  # layers are missing, or when a level cannot hold a value (infinity, NaN). When too
  # few nodes acknowledged the chunk, the code is
  #   resourceExhausted              nodes have no room
  #   failedPrecondition             a node keeps another version of the chunk
  #   unavailable, deadlineExceeded  nodes failed, were down or were too slow
  # Some copies may be held all the same. Storing the chunk again is safe.
}

struct StoreReceipt {
  key @0 :Data;
  version @1 :UInt64;
  existed @2 :Bool;   # The cluster had an object of this key already, and keeps it.
  bytes @3 :UInt64;   # Of one encoded copy.
  holders @4 :List(Text);  # The nodes that acknowledged a copy.
}

struct RetrieveRequest {
  chunks @0 :List(Chunk);
  slice @1 :Slice;
  accept @2 :UInt8;
  # The set of accepted levels; 0: all. Each layer comes at the most exact accepted
  # level that the copy keeps and that the links between nodes carry in half of the
  # call's time. A level does not stand for the levels that it refines: a client that
  # accepts base2 does not get base.
  destination :union {
    inline @3 :Layout;
    # Each layer comes through sink.data, densely packed in this layout: K then V.
    # invalidArgument without a sink.
    memory @4 :SharedMemory;
    # Each chunk is written into this region, at the chunk's offset and strides. The
    # sink may be null; if there is one, it is told of complete layers by sink.ready.
  }

  prefillTokensPerSecond @5 :Float64;
  # How fast the engine prefills. A chunk that would take longer to load or to decode
  # than to prefill comes at a less exact accepted level, or its outcome is recompute.
  # 0: unknown. Then the outcome is recompute only for chunks that the link cannot
  # carry in time.
  leadingChunks @6 :Bool;
  # True: the engine cannot use a chunk behind one that it recomputes. Then a node
  # that cannot send all chunks that it is asked for leaves out the last ones.
  messageBytes @7 :UInt32;
  # Of an inline retrieve: about how many bytes of KV come in one call of sink.data.
  # 0: each call has one layer. A call has at least one layer and at most 8 MiB.

  struct Chunk {
    ref @0 :ChunkRef;
    positions @1 :List(Int32);
    # The position of each token in the engine: one per token of the chunk, none
    # negative. K is delivered with the rotation for these positions.
    offset @2 :UInt64;    # Of the chunk's first byte in the region.
    strides @3 :Strides;  # Of the slice: layer 0 and head 0 are the slice's first.
  }
}

interface LayerSink {
  # Implemented by the client. `chunk` is the index of a chunk in the request. `layer`
  # counts from the first layer of the slice. The layers of one chunk come in order.
  # Do not use the layers of a chunk whose outcome is not a hit.
  data @0 (chunk :UInt32, layer :UInt32, bytes :Data, count :UInt32 = 1) -> stream;
  # `count` layers of an inline retrieve, of which `layer` is the first, densely packed
  # one behind the other. Several only if the request has messageBytes. A client that takes no layer for 10 s, or for 2 s
  # while other retrieves wait for the memory, ends the retrieve with unavailable.
  ready @1 (layers :List(LayerRef)) -> stream;
  # These layers are complete and verified in the shared region.
  done @2 ();
  # The last call. When the client answers it, all earlier calls have arrived.
}

struct LayerRef {
  chunk @0 :UInt32;
  layer @1 :UInt32;
}

enum OutcomeKind {
  hit @0;        # The chunk is delivered.
  miss @1;       # No node has the chunk at an accepted level: compute its KV.
  failed @2;     # A node has the chunk but could not deliver it: compute its KV.
  recompute @3;  # A node has the chunk, but the engine computes its KV sooner, or the
                 # time does not suffice to load it: compute its KV.
}

struct ChunkOutcome {
  kind @0 :OutcomeKind;
  why @1 :Status;
  # Why the chunk failed; unset for other kinds. failedPrecondition: no live node has
  # the calibration with which the chunk was coded, or the gateway's node found two
  # versions of the chunk. unimplemented: the gateway's node, or the node that has the copy, is
  # too old to read the copy's format. In both cases another node may deliver the
  # chunk.

  # The fields below are set for a hit only.
  level @2 :Level;       # The least exact level of the chunk's layers.
  source @3 :Text;       # The node from which the chunk came.
  tier @4 :Tier;         # Where that node had it.
  version @5 :UInt64;
  wireBytes @6 :UInt64;  # Bytes that nodes sent each other for this chunk.
}

# ---------------------------------------------------------------- status

struct NodeStatus {
  id @0 :Text;
  gatewayAddress @1 :Text;
  alive @2 :Bool;
  metrics @3 :List(Metric);
  # Every metric that the gateway's node knows, and the metrics that only newer nodes
  # report. All are 0 when the node is not alive. docs/operations.md and
  # `kdn status --explain` have names, units and meanings. A client shows a metric
  # whose name it does not know as it is.
}

enum MetricType {
  counter @0;    # Grows only, from the start of the node.
  gauge @1;      # The present value.
  histogram @2;  # The distribution of values since the start of the node.
}

struct Metric {
  name @0 :Text;
  type @1 :MetricType;
  value @2 :UInt64;            # Of a histogram: the sum of its values.
  buckets @3 :List(Bucket);    # Of a histogram: the buckets that are not empty.
  struct Bucket {
    # Counts the values that are at most atMost and belong to no lower bucket. The
    # range of a bucket is at most an eighth of its smallest value.
    atMost @0 :UInt64;
    count @1 :UInt64;
  }
}
