"""The protocol: every name in a message, its sender, and its meaning.

A message is a Flower ``RecordDict``. Train and evaluate messages go down with an ArrayRecord
(``arrays``, or whatever name the strategy gives it) and a ConfigRecord (``config``). Replies come
up with an ArrayRecord of the same name and a MetricRecord.

| record or key          | in         | way  | meaning                                      |
|------------------------|------------|------|----------------------------------------------|
| ``server-round``       | config     | down | number of the round, as Flower names it      |
| ``lr-scales``          | config     | down | JSON: tensor -> factor of its learning rate  |
| ``random-features``    | config     | down | how many a client appends to its tokens      |
| ``packed-layout``      | config     | down | JSON: name, dtype, shape of each tensor      |
| ``packed-codec``       | config     | down | wire dtypes, seed of the rounding up         |
| ``packed-start``       | config     | down | the initial weights that are not sent        |
| ``neurons``            | config     | down | a slice's neurons, one bit each              |
| ``packed``             | arrays     | both | one flat array in place of the tensors       |
| ``statistics``         | config     | down | the sums that a client is asked for          |
| ``statistics-dtype``   | config     | down | their dtype on the wire                      |
| ``token-prior``        | own record | down | digest of the prior that is required;        |
|                        |            |      | ``replay``: whether it has Gaussians;        |
|                        |            |      | ``lda-skip``: whether it has a fixed head    |
| ``token-prior-arrays`` | own record | down | the prior itself, to clients that lack it    |
| ``facts``              | own record | up   | reply to a query: name and token facts; in   |
|                        |            |      | another reply once the shard has changed     |
| ``num-examples``       | metrics    | up   | examples of the client; weight of its reply  |
| ``local-steps`` ...    | metrics    | up   | amounts read: :data:`INPUT_METRICS`          |

A value that comes up is a client's claim: it is bounded where it is used, and never trusted.
"""

from __future__ import annotations

# --- packed tensors (:mod:`flower_ist.wire.packing`)
PACKED_KEY = "packed"
PACKED_STYPE = "flower-ist.flat.1"
LAYOUT_KEY = "packed-layout"
CODEC_KEY = "packed-codec"
START_KEY = "packed-start"
NEURONS_KEY = "neurons"
# How an error begins by which a client says that it needs whole weights.
CANNOT_START = "This client cannot make the initial weights"
# Flower's name for an array in .npy form.
NUMPY_STYPE = "numpy.ndarray"

# --- training
ROUND_KEY = "server-round"
# The factor by which each of a slice's tensors is scaled. A client that multiplies the tensor's
# learning rate by it takes the step that the same rate takes in the whole model (docs/method.md).
LR_SCALES_KEY = "lr-scales"
EXAMPLES_KEY = "num-examples"
STEPS_KEY = "local-steps"
# Number of random features that a client appends to its tokens, drawn from the config's seed.
FEATURES_KEY = "random-features"
SEED_KEY = "seed"
# What clients report about the data they read: metric -> field of the run log, summed over a round.
INPUT_METRICS = {
    "image-bytes": "image_bytes",
    "image-file-bytes": "image_file_bytes",
    "masked-image-bytes": "masked_image_bytes",
    "token-bytes": "token_bytes",
    "examples-trained": "examples",
}

# --- facts of a client
FACTS_RECORD = "facts"
CLIENT_NAME_KEY = "client-name"
# Names the content of a client's shard; clients whose updates are private keep it to themselves.
SHARD_KEY = "shard"
MAX_NAME_LENGTH = 80

# --- statistics
STATISTICS_KEY = "statistics"
STATISTICS_DTYPE_KEY = "statistics-dtype"
# The action of the query that asks a client for statistics outside training, and its type.
STATISTICS_ACTION = "statistics"
STATISTICS_QUERY = f"query.{STATISTICS_ACTION}"
CLASS_SUMS = "class-sums"
CLASS_SUMS_AND_GRAM = "class-sums-and-gram"
# Rounded to whole numbers and compressed; in a run, tensors too (flower_ist.wire.compact).
COMPACT = "compact"
STATISTICS_DTYPES = ("float64", "float32", "int16", COMPACT)

# --- the token prior
PRIOR_KEY = "token-prior"
REPLAY_KEY = "replay"
SKIP_KEY = "lda-skip"
PRIOR_RECORD = "token-prior-arrays"
PRIOR_ARRAY = "prior"

# --- limits and codes
# A larger number of examples is treated as an error if the client did not say how many it has.
MAX_EXAMPLES = 10**8
# Seconds that a message lives beyond the time for which its sender waits for the reply.
LIFE_AFTER_TIMEOUT = 30.0
# The code of an error in place of a reply that arrived and was refused on its way to the strategy.
# Flower's own codes are small. A client that sends this code itself is treated as refused.
REFUSED_CODE = 1000
# Flower's codes for: message unavailable, reply unavailable, node unavailable.
SUPERLINK_ERRORS = (3, 4, 5)
