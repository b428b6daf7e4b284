"""What this machine can generate, how exact its clock and timers are, and what would limit a given scenario here."""
