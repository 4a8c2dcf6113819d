"""Parts that networks share; all torch. Complex images become real channels only at the mouth of a convolution."""
