"""Numbers among token ids that are no tokens."""

# Stands in token ids where an image token goes; a picture takes `num_image_tokens` of its layout.
IMAGE_ID = -200
# Marks positions that carry no loss.
IGNORE_ID = -100
