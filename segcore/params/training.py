"""Section `train` of params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from segcore.params.data import Section


class Augment(Section):
    """Joint augmentation of image and mask; every value 0 or false switches it off."""

    flip: bool = True
    rotate90: bool = True
    scale: float = Field(default=1.25, ge=1.0, le=4.0)
    brightness: float = Field(default=0.2, ge=0, lt=1)
    contrast: float = Field(default=0.2, ge=0, lt=1)


class Speed(Section):
    """How a training uses its machine; `auto` is decided when it begins (segcore/training/runtime.py), and told."""

    channels_last: Literal["auto"] | bool = "auto"
    fused: Literal["auto"] | bool = Field(default="auto", description="one kernel for the optimiser's step")
    compile: Literal["auto"] | bool = Field(default="auto", description="torch.compile")
    hold_data: Literal["auto"] | bool = Field(default="auto", description="on the device, augmented there")
    keep_memory: Literal["auto"] | bool = Field(
        default="auto", description="freed memory stays with the process"
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        default="auto", description="threads that make batches ahead; 0: each is made when its step begins"
    )
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="items that pass the network at once; gradients are accumulated"
    )


class TrainSettings(Section):
    """Training of one architecture; the same for all but for what its own section overrides."""

    encoder: str = "mobilenet_v2"
    weights: str = "sample"
    model: dict[str, Any] = Field(default={})
    magnify: float = Field(default=1, ge=0.25, le=4, description="times that images are enlarged")
    normalization: Literal["imagenet", "data"] = "imagenet"
    loss: str = "dice_cross_entropy"
    class_weights: Literal["none", "balanced"] = "none"
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    crop: int = Field(ge=16)
    foreground_share: float = Field(default=0.5, ge=0, le=1)
    augment: Augment = Augment()
    learning_rate: float = Field(default=1e-3, gt=0)
    encoder_learning_rate: float = Field(default=0.3, gt=0, description="relative to learning_rate")
    weight_decay: float = Field(default=1e-2, ge=0)
    warmup_steps: int = Field(default=10, ge=0)
    schedule: Literal["cosine", "poly"] = "cosine"
    ema: Literal["auto"] | Annotated[float, Field(ge=0, lt=1)] | None = None
    freeze_encoder: int = Field(default=0, ge=0, description="steps in which the encoder rests")
    validate_every: int = Field(ge=1)
    patience: int | None = Field(default=None, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    deterministic: bool = True
    speed: Speed = Speed()

    @field_validator("magnify")
    @classmethod
    def _whole_factor(cls, factor: float) -> float:
        if factor % 1 and (1 / factor) % 1:
            raise ValueError(
                f"magnify is a whole number or one divided by one, such as 2 or 0.5, not {factor}"
            )
        return factor
