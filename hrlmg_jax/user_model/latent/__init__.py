"""simulator=latent: users with a taste and an interest that no simulated answer changes."""
