"""Sets of trajectories: collected from any policy, filtered, described, and carried to the formats of other tools."""
