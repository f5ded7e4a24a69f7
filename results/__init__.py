"""Records on disk, and the tables and scores made from them. No torch."""
