"""`bench/telemetry`: the telemetry store under the load that issue 4 names."""
