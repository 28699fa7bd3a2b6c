"""What a trained run recommends: to known and new users, from Python and from the shell, for both systems."""
