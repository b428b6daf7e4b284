"""What runs leave behind: `catalog` finds their folders, `history` tells them over, `prune` removes old ones."""
