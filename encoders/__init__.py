"""Speech encoders as specs plus weights, and the speech to run them on."""
