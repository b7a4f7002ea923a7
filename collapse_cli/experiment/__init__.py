"""What an experiment is: the loop, the loop in blocks, the mixture; each stage's parameters and body."""
