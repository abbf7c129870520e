"""Records of runs: found, read with distrust, grouped by protocol and folded over seeds."""
