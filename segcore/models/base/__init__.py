"""What all architectures share.

- `model` is the base class, `semantic` and `instance` those of the two kinds of networks
- `factory` finds and builds an architecture; `encoders` and `pretrained` are of its encoder
- `keywords` and `object_sizes` are of the settings of instance networks, whose parts are in `segcore.models.instance`
- `bundle`, `description`, `network` and `tensors` are of the files of a trained network
"""
