"""Networks: the interaction encoder, its recurrent unit, and per-node heads."""
