"""Pre-train the same network with another objective, to compare diffusion with: gan, contrastive or masked."""
