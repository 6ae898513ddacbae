"""The recipes that ``superglue-ros train`` runs: typed trees, one YAML file each."""

from __future__ import annotations

from dataclasses import dataclass, field

from superglue_ros.errors import ConfigError
from superglue_ros.geometry.ground_truth import LabelRule
from superglue_ros.networks.match_filter import MatchFilterConfig
from superglue_ros.networks.places import PlacesConfig
from superglue_ros.networks.refinement import PatchRegistrationConfig
from superglue_ros.networks.superglue import SuperGlueConfig
from superglue_ros.networks.superpoint import CELL, SuperPointConfig
from superglue_ros.registry import FRONT_ENDS, SEQUENCES
from superglue_ros.settings import setting
from superglue_ros.synthetic.homographies import HomographyRecipe
from superglue_ros.synthetic.photometric import PhotometricRecipe
from superglue_ros.training.data.batches import SamplingConfig
from superglue_ros.training.data.photograph_pairs import HomographyRanges
from superglue_ros.training.data.views import RoomConfig
from superglue_ros.training.data.world_views import WorldConfig
from superglue_ros.training.objectives.consensus_loss import ConsensusConfig
from superglue_ros.training.objectives.loss import LossConfig
from superglue_ros.training.optimisation import OptimiserConfig, ScheduleConfig
from superglue_ros.training.trainer import LoopConfig


@dataclass(frozen=True)
class SequenceSource:
    """A sequence with depth and poses; frames without either are left out.

    ``folder``: the sequence (MegaDepth: the scene file, with ``root`` for its images); a pattern
    such as ``scannet/scene*_00`` stands for all that it matches.
    """

    folder: str
    layout: str = setting("", "Layout; empty: the one its files show.", choices=("", *SEQUENCES))
    root: str = ""
    first: int = setting(0, "First frame that is used; negative: from the end.")
    last: int = setting(0, "End of the frames that are used; 0: all.")
    gap: tuple[int, int] = (1, 8)  # frames between neighbouring views of a set; (0, 0): any two
    depth_unit: float = setting(0.0, "Metres of one unit of depth; 0: the layout's own.", low=0.0)


@dataclass(frozen=True)
class ViewRecipe:
    """Settings of drawn view sets and of the keypoints per view."""

    source: str = setting(
        "homography",
        "Kind of view sets; flow: sequences without poses, labelled by optical flow.",
        choices=("homography", "rooms", "worlds", "sequences", "flow"),
    )
    corpus: str = ""
    sequences: tuple[SequenceSource, ...] = ()
    views: int = setting(2, "Views per set.", low=2)
    width: int = setting(640, "Width of a view, a multiple of 8.", low=64)
    height: int = setting(480, "Height of a view, a multiple of 8.", low=64)
    keypoints: int = setting(512, "Keypoints per view.", low=8)
    random_keypoints: bool = setting(True, "Fill sets up with random keypoints, as the paper does.")
    photograph_share: float = setting(
        0.8, "Part of the images drawn that are photographs; the rest are textures.",
        low=0.0, high=1.0,
    )  # fmt: skip
    labels: LabelRule = field(default_factory=LabelRule)
    # Sequences: how much neighbouring views share, low and high: the part of the area, or of the
    # reconstructed points where the sequence has such scores (MegaDepth).
    overlap: tuple[float, float] = (0.1, 1.0)
    homography: HomographyRecipe = field(
        default_factory=lambda: HomographyRecipe(min_overlap=0.25, rotation_deg=45.0, min_crop=0.3)
    )
    photometric: PhotometricRecipe = field(default_factory=PhotometricRecipe)
    rooms: RoomConfig = field(default_factory=RoomConfig)
    worlds: WorldConfig = field(default_factory=WorldConfig)


@dataclass(frozen=True)
class CacheRecipe(ViewRecipe):
    """Settings of a feature cache."""

    front_end: str = setting("superpoint", "Local features.", choices=FRONT_ENDS)
    detector: str = ""  # SuperPoint weights; empty takes the package's own
    output: str = "cache"
    sets: int = setting(1000, "View sets.", low=1)
    views: int = setting(3, "Views per set.", low=2)
    sets_per_shard: int = setting(32, "View sets per file.", low=1)
    seed: int = setting(0, "Seed of everything random.", low=0)
    precision: str = setting("auto", "Format.", choices=("auto", "float32", "bfloat16"))
    device: str = setting("auto", "auto: the GPU where there is one; else a torch device's name.")
    processes: int = setting(1, "Processes that make shards.", low=1)


@dataclass(frozen=True)
class Stage:
    """A stage of the curriculum, on stored features or on pairs drawn at every step.

    ``caches`` maps folders to sampling weights; ``views`` defines the drawn pairs. A stage has
    exactly one of the two: raises :class:`ConfigError` otherwise. ``scales``: sizes of drawn views
    that a step trains on, in parts of the recipe's; the loss is their mean (technical report,
    "Multi-Scale Training").
    """

    name: str
    steps: int
    caches: dict[str, float] = field(default_factory=dict)
    views: ViewRecipe | None = None
    scales: tuple[float, ...] = (1.0,)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if bool(self.caches) == (self.views is not None):
            raise ConfigError(
                f"stage {self.name}: give caches (stored features) or views (pairs drawn at every "
                f"step), and not both"
            )
        if self.views is not None and self.views.views != 2:
            raise ConfigError(
                f"stage {self.name}: views.views must be 2, not {self.views.views}: pairs are drawn"
            )
        self._check_scales()

    def _check_scales(self) -> None:
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ConfigError(
                f"stage {self.name}: scales must be numbers above 0 and up to 1, "
                f"not {list(self.scales)}"
            )
        if self.scales == (1.0,):
            return
        if self.views is None:
            raise ConfigError(
                f"stage {self.name}: scales are of views drawn at every step; features in caches "
                f"have the scale they were made at: make a cache for each"
            )
        for scale in self.scales:
            sides = [scale * side for side in (self.views.width, self.views.height)]
            if any(side % CELL for side in sides):
                raise ConfigError(
                    f"stage {self.name}: at scale {scale} views are {sides[0]:g}x{sides[1]:g}: "
                    f"give sizes and scales that make multiples of {CELL}"
                )


@dataclass(frozen=True)
class AdversarialConfig:
    """Training on keypoints moved against the matcher (technical report, "Adversarial Training").

    The loss on keypoints + epsilon sign(gradient) is added, weighted.
    """

    epsilon: float = setting(
        0.0, "Step of each coordinate, in parts of the image's larger side; 0: none.",
        low=0.0, high=0.1,
    )  # fmt: skip
    weight: float = setting(0.5, "Weight of the loss on moved keypoints.", low=0.0)


@dataclass(frozen=True)
class SuperGlueRecipe:
    """Training of SuperGlue.

    ``start``: ``matching`` is the optimal-matching layer on the raw descriptors, ``random`` is
    PyTorch's initialisation, any other value is a weights file, empty for the package's own. A
    network with more layers or width than the file's is grown from it (see
    :mod:`superglue_ros.training.growth`). ``detector``: SuperPoint weights for stages with
    ``views``, empty takes the package's own; a cache names the detector it was made with.
    """

    output: str
    stages: tuple[Stage, ...]
    network: SuperGlueConfig = field(default_factory=SuperGlueConfig)
    detector: str = ""
    start: str = "matching"
    start_scale: float = setting(20.0, "Scale of the cosine where training starts.", low=0.1)
    sinkhorn_iterations: int = setting(20, "Sinkhorn iterations in training.", low=1)
    resident: bool = setting(
        False,
        "Keep the views of the caches on the device and draw batches there, of exactly "
        "sampling.keypoints keypoints; on a GPU a step is then one CUDA graph.",
    )
    gradient_checkpointing: bool = setting(False, "Trade arithmetic for memory.")
    frozen_batch_norm: bool = setting(
        False,
        "Use the start's statistics of batch norm, not the batch's, and leave them as they are.",
    )
    validation: str = ""  # a cache to report precision and recall on
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.resident and self.loop.workers:
            raise ConfigError(
                "resident batches are drawn on the device by the process that trains: set "
                "loop.workers to 0"
            )
        if self.adversarial.epsilon and not self.network.reads_positions:
            raise ConfigError(
                "adversarial.epsilon moves keypoints, and this network does not read their "
                "positions: give network.keypoint_encoder its layers, or set epsilon to 0"
            )
        if self.detector and all(stage.views is None for stage in self.stages):
            raise ConfigError(
                "detector is for stages with views; features in caches are of the detector that "
                "made them: leave it out"
            )


@dataclass(frozen=True)
class SuperPointRecipe:
    """Training of SuperPoint on homographies of crops with detector labels.

    ``start``: a weights file, empty for the package's own, or ``random``; ``frozen_blocks`` of the
    encoder keep their weights.
    """

    output: str
    labels: str
    steps: int
    start: str = "random"
    network: SuperPointConfig = field(default_factory=SuperPointConfig)
    frozen_blocks: int = setting(0, "Encoder blocks that are not trained.", low=0, high=4)
    pairs: int = setting(4, "Pairs of views per step and process.", low=1)
    width: int = setting(320, "Width of a view, a multiple of 8.", low=64)
    height: int = setting(240, "Height of a view, a multiple of 8.", low=64)
    described: str = setting(
        "labels", "What descriptors learn to tell apart: labelled points that both views show, or "
        "detections of the network's own, those without a partner among them.",
        choices=("labels", "detections"),
    )  # fmt: skip
    points: int = setting(
        220, "Labelled points per pair, or detections per view, that descriptors learn from.", low=8
    )
    temperature: float = setting(0.05, "Of the descriptors' cross-entropy.", low=1e-3)
    detector_weight: float = setting(2.0, "Weight of the detector's loss.", low=0.0)
    jitter: float = setting(0.5, "Noise on the points in pixels, as detections have.", low=0.0)
    edge_ratio: float = setting(
        0.0, "Cornerness below which a label's target falls in proportion; 0: none does.", low=0.0
    )
    train_descriptors: bool = setting(
        True,
        "false: train the detector's head alone; descriptors, and SuperGlue on them, stay valid.",
    )
    homography: HomographyRecipe = field(
        default_factory=lambda: HomographyRecipe(
            perspective=0.2, rotation_deg=30.0, scale=(0.65, 1.5), min_overlap=0.35, min_crop=0.45
        )
    )
    photometric: PhotometricRecipe = field(default_factory=PhotometricRecipe)
    validation_corpus: str = ""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True)
class EndToEndRecipe:
    """Training of SuperGlue and the descriptor head together; detection is frozen (section 5.4).

    ``superpoint`` and ``superglue`` are weights files, empty for the package's own; ``views``
    defines the drawn pairs.
    """

    output: str
    steps: int
    superpoint: str = ""
    superglue: str = ""
    pairs: int = setting(2, "Pairs per step and process.", low=1)
    views: ViewRecipe = field(default_factory=ViewRecipe)
    sinkhorn_iterations: int = setting(20, "Sinkhorn iterations in training.", low=1)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.views.views != 2:
            raise ConfigError(f"views.views must be 2, not {self.views.views}: pairs are drawn")


@dataclass(frozen=True)
class NoiseConfig:
    """How detectors displace matched keypoints: a mixture of Gaussians, cut off at ``most_px``.

    ``scales_px`` are standard deviations of a coordinate, ``shares`` (as many) their parts. Raises
    :class:`ConfigError` where those are not positive or do not add up to 1.
    """

    scales_px: tuple[float, ...] = (0.2, 0.8, 1.6)
    shares: tuple[float, ...] = (0.25, 0.55, 0.2)
    most_px: float = setting(3.0, "Largest displacement in pixels.", low=0.1)
    draws: int = setting(2, "Displacements drawn for each corner.", low=1)
    wrong: float = setting(0.1, "Part of the matches that is wrong.", low=0.0, high=0.9)
    wrong_px: float = setting(2.0, "Standard deviation that wrong matches learn.", low=0.1)

    def __post_init__(self) -> None:
        positive = min(*self.scales_px, *self.shares) > 0
        if len(self.scales_px) != len(self.shares) or not positive:
            raise ConfigError("noise: give as many positive scales_px as shares")
        if abs(sum(self.shares) - 1) > 1e-6:
            raise ConfigError(f"noise.shares must add up to 1, not {sum(self.shares):g}")


@dataclass(frozen=True)
class ConsensusRecipe:
    """Training of SuperPoint on pairs of views with exact geometry, without labels.

    ``start``: a weights file, empty for the package's own, or ``random``. ``corpus`` gives
    photographs, ``views`` a folder of rendered view sets (``train views``), empty for none; both
    stay on the device. Batch norm keeps its statistics, and ``frozen_blocks`` of the encoder keep
    their weights.
    """

    output: str
    steps: int
    corpus: str
    views: str = ""
    start: str = ""
    network: SuperPointConfig = field(default_factory=SuperPointConfig)
    trained: str = setting(
        "all",
        "What is trained; with detector, descriptors stay valid.",
        choices=("all", "detector"),
    )
    frozen_blocks: int = setting(0, "Encoder blocks that are not trained.", low=0, high=4)
    pairs: int = setting(24, "Pairs of views per step.", low=2)
    rendered_share: float = setting(
        0.5, "Part of the pairs that are rendered, where there are any.", low=0.0, high=1.0
    )
    width: int = setting(640, "Width of a view, a multiple of 8, that of rendered ones.", low=64)
    height: int = setting(480, "Height of a view, likewise.", low=48)
    gigabytes: float = setting(20.0, "Rendered views to keep on the device.", low=0.0)
    photometric: float = setting(0.6, "Probability of each photometric change.", low=0.0, high=1.0)
    homography: HomographyRanges = field(default_factory=HomographyRanges)
    loss: ConsensusConfig = field(default_factory=ConsensusConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.width % CELL or self.height % CELL:
            raise ConfigError(f"width and height must be multiples of {CELL}")
        if self.loop.workers:
            raise ConfigError("loop.workers must be 0: views are drawn on the device that trains")


@dataclass(frozen=True)
class RefinementRecipe:
    """Training of the network that refines matches, on corners of ``views`` drawn at every step."""

    output: str
    steps: int
    noise: NoiseConfig
    pairs: int = setting(4, "Pairs of views per step and process.", low=1)
    network: PatchRegistrationConfig = field(default_factory=PatchRegistrationConfig)
    views: ViewRecipe = field(default_factory=ViewRecipe)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.views.views != 2:
            raise ConfigError(f"views.views must be 2, not {self.views.views}: pairs are drawn")


@dataclass(frozen=True)
class FilterLossConfig:
    """Loss of a filter of matches: balanced cross-entropy plus ``regression`` times the model's.

    ``form``: ``matrix`` is PointCN's, the squared difference of the unit-norm matrices of the
    filter's weights and of the right matches; ``distance`` OANet's, the mean distance of the right
    matches from the matrix of the filter's weights.
    """

    form: str = setting("distance", "Term of the model.", choices=("matrix", "distance"))
    regression: float = setting(0.5, "Weight of the model's term; 0: none.", low=0.0)
    regression_from: int = setting(500, "Step from which on it counts.", low=0)


@dataclass(frozen=True)
class MatchFilterRecipe:
    """Training of PointCN or OANet (``network.clusters``) on the nearest neighbours of ``caches``.

    ``caches``: folder to sampling weight, of any one kind of features; ``validation``: caches to
    report precision and recall on; ``still``: part of the pairs that show a view and itself. Raises
    :class:`ConfigError` without a cache.
    """

    output: str
    steps: int
    caches: dict[str, float]
    network: MatchFilterConfig = field(default_factory=MatchFilterConfig)
    validation: tuple[str, ...] = ()
    still: float = setting(0.1, "Part of the pairs of a view and itself.", low=0.0, high=1.0)
    warp: float = setting(
        0.1, "Size of the random homography of the points of one image; 0: none.", low=0.0, high=0.5
    )
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loss: FilterLossConfig = field(default_factory=FilterLossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if not self.caches:
            raise ConfigError("caches is empty: name at least one, made with 'train cache'")
        if self.sampling.hard_percentile:
            raise ConfigError("sampling.hard_percentile is SuperGlue's: set it to 0")


@dataclass(frozen=True)
class PlacesRecipe:
    """Training of the aggregation for place recognition on the overlapping views of ``caches``.

    ``caches``: folder to sampling weight, of any one kind of features; ``validation``: caches to
    report recall on; ``keypoints``: range of how many of the best of a view are used. Raises
    :class:`ConfigError` without a cache.
    """

    output: str
    steps: int
    caches: dict[str, float]
    network: PlacesConfig = field(default_factory=PlacesConfig)
    validation: tuple[str, ...] = ()
    places: int = setting(64, "Places per step, two views of each.", low=2)
    keypoints: tuple[int, int] = (128, 512)
    drop: float = setting(0.2, "Part of the keypoints left out.", low=0.0, high=0.9)
    crop: float = setting(
        0.6, "Least part of a view's width and height whose keypoints are used.", low=0.1, high=1.0
    )
    temperature: float = setting(0.05, "Of the cross-entropy over similarities.", low=1e-3)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if not self.caches:
            raise ConfigError("caches is empty: name at least one, made with 'train cache'")
        low, high = self.keypoints
        if not 2 <= low <= high:
            raise ConfigError(f"keypoints must be a range from 2 on, not {list(self.keypoints)}")
