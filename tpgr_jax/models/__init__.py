"""Models of ratings and users that several agents are fitted with."""
