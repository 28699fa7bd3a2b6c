"""What every run needs, whatever the method: settings, run folders, checkpoints, the training loop, reports."""
