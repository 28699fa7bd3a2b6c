"""The methods that TPGR is compared with."""
