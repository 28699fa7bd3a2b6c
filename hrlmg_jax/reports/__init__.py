"""Tables and figures of the HRL-MG paper, made from run folders."""
