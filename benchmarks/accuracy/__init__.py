"""How well label maps agree with reference labels, and how volumes follow known changes."""
