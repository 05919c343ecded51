"""What every backend's training has in common, so that a job means the same in each framework."""
