"""The control plane's HTTP API: audit intake, feedback, results. If it is down, predictions go on."""
