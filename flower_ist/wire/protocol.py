"""The protocol: every name in a message, who writes it, and what it means.

A message is a Flower ``RecordDict``. Train and evaluate messages go down with an ArrayRecord
(``arrays``, whatever name the strategy gives it) and a ConfigRecord (``config``); replies come up
with an ArrayRecord of the same name and a MetricRecord.

| record or key          | in         | way  | meaning                                      |
|------------------------|------------|------|----------------------------------------------|
| ``server-round``       | config     | down | number of the round, as Flower names it      |
| ``lr-scales``          | config     | down | JSON: tensor -> factor of its learning rate  |
| ``random-features``    | config     | down | how many a client puts beside its tokens     |
| ``packed-layout``      | config     | down | JSON: name, dtype, shape of each tensor      |
| ``packed-codec``       | config     | down | wire dtypes, seed of the rounding up         |
| ``packed``             | arrays     | both | one flat array in the place of the tensors   |
| ``statistics``         | config     | down | the sums that a client is asked for          |
| ``statistics-dtype``   | config     | down | their dtype on the wire                      |
| ``token-prior``        | own record | down | digest of the prior that is counted on;      |
|                        |            |      | ``replay``: whether it has Gaussians;        |
|                        |            |      | ``ridge-skip``: whether it has a ridge head  |
| ``token-prior-arrays`` | own record | down | the prior itself, to those who lack it       |
| ``facts``              | own record | up   | answer to a query: name and token facts      |
| ``num-examples``       | metrics    | up   | examples of the client; weight of its reply  |
| ``local-steps`` ...    | metrics    | up   | what was read: :data:`INPUT_METRICS`         |

A value that comes up is a client's claim: it is bounded where it is used, never believed.
"""

from __future__ import annotations

# --- packed tensors (:mod:`flower_ist.wire.layout`)
PACKED_KEY = "packed"
PACKED_STYPE = "flower-ist.flat.1"
LAYOUT_KEY = "packed-layout"
CODEC_KEY = "packed-codec"
# Flower's name for an array in .npy form.
NUMPY_STYPE = "numpy.ndarray"

# --- training
ROUND_KEY = "server-round"
# The factor that each of a slice's tensors carries. A client that multiplies the tensor's learning
# rate by it makes the step that the same rate makes in the whole model (docs/method.md).
LR_SCALES_KEY = "lr-scales"
EXAMPLES_KEY = "num-examples"
STEPS_KEY = "local-steps"
# Number of random features that a client puts beside its tokens, drawn from the config's seed.
FEATURES_KEY = "random-features"
SEED_KEY = "seed"
# What clients report of the data they read: metric -> field of the run log, summed over a round.
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
MAX_NAME_LENGTH = 80

# --- statistics
STATISTICS_KEY = "statistics"
STATISTICS_DTYPE_KEY = "statistics-dtype"
# The action of the query that asks a client for statistics outside of training, and its type.
STATISTICS_ACTION = "statistics"
STATISTICS_QUERY = f"query.{STATISTICS_ACTION}"
CLASS_SUMS = "class-sums"
CLASS_SUMS_AND_GRAM = "class-sums-and-gram"
WIRE_DTYPES = ("float64", "float32", "int16")

# --- the token prior
PRIOR_KEY = "token-prior"
REPLAY_KEY = "replay"
SKIP_KEY = "ridge-skip"
PRIOR_RECORD = "token-prior-arrays"
PRIOR_ARRAY = "prior"

# --- limits and codes
# More examples than this are taken for a mistake where the client did not say how many it has.
MAX_EXAMPLES = 10**8
# Seconds that a message lives after the time in which its sender waits for the reply.
LIFE_AFTER_TIMEOUT = 30.0
# The code of an error in the place of a reply that came and was refused on its way to the strategy:
# none of Flower's own, which are small. A client that sends it itself is taken at its word.
REFUSED_CODE = 1000
# Flower's codes for: message unavailable, reply unavailable, node unavailable.
SUPERLINK_ERRORS = (3, 4, 5)
