"""What the programs tell of themselves: metrics, health and logs, the same for control plane and agent."""
