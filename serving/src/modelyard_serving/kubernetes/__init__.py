"""The stage of pods: each deployed version is a Deployment and a Service of a Kubernetes."""
