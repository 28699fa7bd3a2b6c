"""TPGR and TPGR+: tree policies and their learners."""
