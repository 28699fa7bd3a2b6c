"""Tables and figures of the TPGR paper, made from run folders."""
