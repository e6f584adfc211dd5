"""Pictures and cut-outs made from an image and its label map."""
