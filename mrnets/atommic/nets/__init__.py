"""Networks that ATOMMIC computes otherwise than their papers, and with other parameters: one file each."""
