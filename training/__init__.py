"""How the open model is made: labels, synthetic images, training, export."""
