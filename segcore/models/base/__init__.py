"""What several architectures share.

All: `model` (base class), `encoders`, `pretrained`, `factory`; `bundle`, `description`, `network` and `tensors` are of
the files of a trained network.

Semantic networks: `semantic` (base class).

Instance networks: `instance` (base class), `keywords` (checks of settings), `object_sizes`, `pyramid`, and

    anchors         boxes
    Mask R-CNN      proposals, regions, region_heads, roi_align, torchvision_detector
    YOLACT          anchor_head, anchor_targets, prototypes, mask_points, mask_rating
    SOLO            cells, branches, block_masks
"""
