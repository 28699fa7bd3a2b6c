"""What every run needs and no paper owns: checkpoints, metric writers, progress, the outer loop."""
