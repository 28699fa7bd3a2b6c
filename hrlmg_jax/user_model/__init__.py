"""Users learned from a log: item embedding, network, fit, quality."""
