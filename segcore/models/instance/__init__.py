"""Parts of instance networks.

all             pyramid, exportable
anchors         boxes
Mask R-CNN      proposals, regions, region_heads, region_tensors, roi_align, torchvision_detector
YOLACT          anchor_head, anchor_targets, prototypes, mask_points, mask_rating
SOLO            cells, branches, block_masks
"""
