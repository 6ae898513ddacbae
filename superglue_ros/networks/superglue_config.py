"""The architecture of SuperGlue, as settings: the paper's by default, the rest as options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from superglue_ros.errors import ConfigError

AGGREGATIONS = ("attention", "mean", "max")


@dataclass(frozen=True)
class SuperGlueConfig:
    """Architecture; the defaults are the paper's, the options are described in docs/options.md.

    ``descriptor_dim`` of the input; ``width`` D of every layer; ``layers`` L, each a self- and a
    cross-attention. The ablations of the paper's table 4: ``graph=False`` is "No Graph Neural Net",
    ``cross_attention=False`` replaces cross- by self-attention, ``keypoint_encoder=()`` is "No
    positional encoding".

    Options of the technical report, off by default. What the keypoint encoder reads:

    - ``sinusoids``: sines and cosines of as many frequencies of each coordinate; 0: coordinates.

    Messages:

    - ``aggregation``: ``attention`` (eq. 4), or ``mean`` or ``max`` pooling of pairwise messages;
    - ``edges``: channels of the edge features e_ij that enter the messages; 0: none;
    - ``position_bias``: reach of a bias of the attention towards near keypoints, in parts of the
      image's larger side (the report's 100 pixels are 0.16 of 640); 0: none;
    - ``neighbours``: edges from the most similar nodes only, this many for each, and from those
      of a cosine above ``neighbour_cosine``; 0: a complete graph;
    - ``top_k``: keys that a query attends to; 0: all. Up to ``top_k_block`` queries share them;
    - ``prune``: in inference, attention weights up to this are zero; 0: none is;
    - ``scales``: parts of the resolution of the lattices on which the graph is processed; 1 is the
      keypoints themselves.

    Optimal matching:

    - ``temperature``: where the learned tau that scores are divided by starts; 0: fixed, sqrt(D);
    - ``separate_dustbins``: a learned score for the rows' dustbin, one for the columns', and 0
      where they meet, in place of a single score;
    - ``learned_iterations``: most Sinkhorn iterations, of which the network learns the number; 0:
      as many as the caller says;
    - ``hierarchy``: in inference, match clusters of about 2^hierarchy keypoints first, and
      keypoints within matched clusters; 0: all keypoints at once;
    - ``uncertainty``: a learned doubt about a match, whose score is then the probability that it is
      right.

    Raises :class:`ConfigError` on values out of range and on options that exclude each other.
    """

    descriptor_dim: int = 256
    width: int = 256
    layers: int = 9
    heads: int = 4
    keypoint_encoder: tuple[int, ...] = (32, 64, 128, 256)
    graph: bool = True
    cross_attention: bool = True
    sinusoids: int = 0
    aggregation: str = "attention"
    edges: int = 0
    position_bias: float = 0.0
    neighbours: int = 0
    neighbour_cosine: float = 0.5
    top_k: int = 0
    top_k_block: int = 64
    prune: float = 0.0
    scales: tuple[float, ...] = (1.0,)
    temperature: float = 0.0
    separate_dustbins: bool = False
    learned_iterations: int = 0
    hierarchy: int = 0
    uncertainty: bool = False

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"network.{name} must be from {low} to {high}, not {value}")
        if self.aggregation not in AGGREGATIONS:
            raise ConfigError(
                f"network.aggregation must be one of {', '.join(AGGREGATIONS)}, "
                f"not {self.aggregation!r}"
            )
        if not self.scales or not all(0.03 < scale <= 1 for scale in self.scales):
            raise ConfigError(
                f"network.scales must be a list of numbers above 0.03 and up to 1, "
                f"not {list(self.scales)}"
            )
        if self.sinusoids and not self.keypoint_encoder:
            raise ConfigError(
                "network.sinusoids is read by the keypoint encoder: give keypoint_encoder its "
                "layers, or set sinusoids to 0"
            )
        for name, others in _EXCLUDED.items():
            both = [other for other in others if self._is_set(other)]
            if self._is_set(name) and both:
                raise ConfigError(
                    f"network.{name} does not work with {' and '.join(both)}: set one of them to "
                    f"its default"
                )

    def _is_set(self, name: str) -> bool:
        return bool(getattr(self, name) != _DEFAULTS[name])

    def options(self) -> Iterator[str]:
        """Names of the options that differ from the paper's architecture."""
        yield from (name for name in OPTIONS if self._is_set(name))

    @property
    def needs_positions(self) -> bool:
        """Whether messages read the positions of the keypoints, not only their representations."""
        return bool(self.edges or self.position_bias or self.scales != (1.0,))

    @property
    def reads_positions(self) -> bool:
        """Whether anything depends on where the keypoints are."""
        return bool(self.keypoint_encoder) or (self.graph and self.needs_positions)

    @property
    def reads_pairs(self) -> bool:
        """Whether a message depends on more than query, key and value of complete sets."""
        return bool(self.needs_positions or self.neighbours or self.aggregation != "attention")


_RANGES = (
    ("sinusoids", 0, 16),
    ("edges", 0, 64),  # numbers for each pair of keypoints: 64 MB each for 4096 of both
    ("position_bias", 0.0, 10.0),
    ("neighbours", 0, 4096),
    ("neighbour_cosine", -1.0, 1.0),
    ("top_k", 0, 4096),
    ("top_k_block", 1, 4096),
    ("prune", 0.0, 0.99),
    ("temperature", 0.0, 1000.0),
    ("learned_iterations", 0, 1000),
    ("hierarchy", 0, 12),
)
# These change the weights of the attention, or need every pair where top_k avoids them.
_EXCLUDED = {
    "aggregation": ("top_k", "prune", "position_bias"),
    "top_k": ("edges", "position_bias", "neighbours", "prune"),
}
_DEFAULTS = {item.name: item.default for item in fields(SuperGlueConfig)}
OPTIONS = tuple(_DEFAULTS)[tuple(_DEFAULTS).index("sinusoids") :]
"""Names of the settings beyond the paper's architecture and its ablations."""
