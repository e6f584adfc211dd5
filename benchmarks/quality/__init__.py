"""How well the quality measures find bad results."""
