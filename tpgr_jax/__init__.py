"""The TPGR system (Chen et al., AAAI 2019): a balanced item tree, a policy at every inner node, REINFORCE."""
