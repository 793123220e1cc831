"""A lesion followed from frame to frame: frames in, a prompt on one of them, masks on all."""
