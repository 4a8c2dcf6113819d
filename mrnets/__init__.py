"""Networks and the physics they stand on. Empty on purpose: `mrnets.physics` loads without torch."""
