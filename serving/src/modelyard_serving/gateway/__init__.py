"""The data plane's configuration: Envoy checks keys, assigns units to variants, and routes."""
